"""Fixtures that several files of this folder share."""

from installed_wheel import checkout, shapes, wheel  # noqa: F401
