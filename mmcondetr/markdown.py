"""Markdown: tables, and sections of a page that a program writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from mmcondetr.errors import UserError


def table(heading: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table, every cell as ``str`` gives it; columns are not aligned, so that a changed cell changes one line."""
    lines = [heading, ['---'] * len(heading), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def replace_section(text: str, begin: str, end: str, section: str, source: str | os.PathLike) -> str:
    """``text`` with ``section`` between the lines ``begin`` and ``end``; everything else stays as it is.

    Args:
        text: of the page.
        begin: marker before the section.
        end: marker after it.
        section: what is to stand between them, without a line break at its ends.
        source: the page's file, for the message.

    Raises:
        UserError: the page does not hold both markers once and in order.
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UserError(f"'{os.fspath(source)}' needs the line '{begin}' and after it '{end}', each once.")
    before, after = text[: text.index(begin)], text[text.index(end) :]
    return f'{before}{begin}\n{section}\n{after}'
