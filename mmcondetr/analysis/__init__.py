"""Predictions against truth: AP by class, confusions, kinds of errors, and the worst images as a page."""
