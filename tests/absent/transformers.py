"""Stands before the installed transformers in the processes that tests start: see tests/conftest.py."""

raise ModuleNotFoundError("No module named 'transformers'", name='transformers')
