"""Command lines: thin scripts for users, and packages that are about the repository rather than the detector."""
