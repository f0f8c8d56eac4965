"""What is printed on a terminal, which names in files of strangers must not steer."""

from __future__ import annotations

from typing import TextIO


def printable(text: str) -> str:
    """The text with control characters (escape sequences among them) as their codes; newlines and tabs are kept."""
    return ''.join(char if char.isprintable() or char in '\n\t' else f'\\x{ord(char):02x}' for char in text)


def say(text: str = '', file: TextIO | None = None) -> None:
    """Print a :func:`printable` line on standard output, or on ``file``, at once."""
    print(printable(text), file=file, flush=True)
