"""Markdown: tables, and sections of a page that a program writes."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence

from mmcondetr.errors import UserError

LINE_LENGTH = 120


def table(heading: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table, every cell as ``str`` gives it; columns are not aligned, so that a changed cell changes one line."""
    lines = [heading, ['---'] * len(heading), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def wrap(text: str) -> str:
    """``text`` with lines of at most 120 characters; list items stay items, tables and long addresses as they are."""
    return '\n'.join(
        line
        if len(line) <= LINE_LENGTH or line.startswith('|')
        else textwrap.fill(
            line,
            LINE_LENGTH,
            subsequent_indent='  ' if line.startswith('- ') else '',
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split('\n')
    )


def replace_section(text: str, begin: str, end: str, section: str, source: str | os.PathLike) -> str:
    """``text`` with ``section`` between the lines ``begin`` and ``end``; everything else stays as it is.

    Args:
        text: of the page.
        begin: marker before the section.
        end: marker after it.
        section: what is to stand between them, without a line break at its ends; its prose is wrapped.
        source: the page's file, for the message.

    Raises:
        UserError: the page does not hold both markers once and in order.
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UserError(f"'{os.fspath(source)}' needs the line '{begin}' and after it '{end}', each once.")
    before, after = text[: text.index(begin)], text[text.index(end) :]
    return f'{before}{begin}\n{wrap(section)}\n{after}'
