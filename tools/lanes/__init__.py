"""Lanes: sets of packages, each installed into a fresh environment and tested: docs/compatibility.md."""
