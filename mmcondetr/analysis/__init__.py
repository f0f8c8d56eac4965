"""Predictions against ground truth: AP by class, confusion matrix, kinds of errors, and an HTML report."""
