"""Markdown tables, and generated sections of a page."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence

from mmcondetr.errors import UserError

LINE_LENGTH = 120


def table(heading: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table of ``str(cell)``. Columns are not aligned, so a changed cell changes only one line."""
    lines = [heading, ['---'] * len(heading), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def wrap(text: str) -> str:
    """Wrap lines to 120 characters. List items stay items; tables and long URLs are left alone."""
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
    """Replace what stands between the markers ``begin`` and ``end`` with ``section``; the rest is unchanged.

    Args:
        text: the page.
        begin: marker before the section.
        end: marker after the section.
        section: new content without leading or trailing line breaks; its prose is wrapped.
        source: the page's file, for the error message.

    Raises:
        UserError: the page does not contain each marker exactly once, in order.
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UserError(f"'{os.fspath(source)}' must contain the line '{begin}', followed by '{end}', once each.")
    before, after = text[: text.index(begin)], text[text.index(end) :]
    return f'{before}{begin}\n{wrap(section)}\n{after}'
