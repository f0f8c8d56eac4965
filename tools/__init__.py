"""Command lines: thin scripts for users, and packages that maintain the repository."""
