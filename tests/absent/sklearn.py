"""Stands before the installed sklearn in the processes that tests start: see tests/conftest.py."""

raise ModuleNotFoundError("No module named 'sklearn'", name='sklearn')
