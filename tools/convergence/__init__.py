"""How quickly systems learn, at small scale: running them, and reporting the runs."""
