"""Fixtures shared by several files in this folder."""

from installed_wheel import checkout, shapes, wheel  # noqa: F401
