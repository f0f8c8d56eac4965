"""How soon systems learn, at small scale: running them, and what the runs say."""
