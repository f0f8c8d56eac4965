"""Self-contained HTML pages of headings, tables and pictures, without scripts or network requests."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mmcondetr.writing import replacing

LARGEST = 900  # pixels of a picture's longer side
STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--accent:#d5356b}
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}.wide{overflow-x:auto}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}
figure{margin:0}figure img{width:100%;height:auto;border-radius:4px}figcaption{font-size:.85rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(18rem,1fr));gap:1rem}
.error{color:var(--accent);font-weight:600}
"""


def table(
    head: Sequence[str], rows: Sequence[Sequence[object]], shades: Sequence[Sequence[float]] | None = None
) -> str:
    """A table; ``shades`` from 0 to 1 darken its cells, except in the first column."""
    lines = ['<div class="wide"><table><thead><tr>', *(f'<th>{html.escape(str(cell))}</th>' for cell in head)]
    lines.append('</tr></thead><tbody>')
    for number, row in enumerate(rows):
        cells = []
        for index, cell in enumerate(row):
            shade = shades[number][index - 1] if shades is not None and index else 0.0
            style = f' style="background:rgba(213,53,107,{0.6 * shade:.2f})"' if shade else ''
            cells.append(f'<td{style}>{html.escape(str(cell))}</td>')
        lines.append(f'<tr>{"".join(cells)}</tr>')
    return ''.join(lines) + '</tbody></table></div>'


def text(words: str, kind: str = '') -> str:
    """A paragraph."""
    return f'<p class="{kind}">{html.escape(words)}</p>' if kind else f'<p>{html.escape(words)}</p>'


def listing(lines: Sequence[str], kind: str = '') -> str:
    """A list of lines."""
    return '<ul>' + ''.join(f'<li class="{kind}">{html.escape(line)}</li>' for line in lines) + '</ul>'


def pictures(shown: Sequence[tuple[Image.Image, str]]) -> str:
    """A grid of pictures with captions, embedded as JPEG."""
    return '<div class="grid">' + ''.join(_figure(*one) for one in shown) + '</div>'


def _figure(picture: Image.Image, caption: str) -> str:
    picture = picture.convert('RGB')
    picture.thumbnail((LARGEST, LARGEST))
    data = io.BytesIO()
    picture.save(data, 'JPEG', quality=85)
    encoded, words = base64.b64encode(data.getvalue()).decode(), html.escape(caption)
    return (
        f'<figure><img src="data:image/jpeg;base64,{encoded}" alt="{words}" width="{picture.width}" '
        f'height="{picture.height}"><figcaption>{words}</figcaption></figure>'
    )


def write_page(path: str | os.PathLike, title: str, sections: Sequence[tuple[str, str]]) -> None:
    """Write a page with a title and sections, each a heading and HTML made by the functions above."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    body = ''.join(f'<section><h2>{html.escape(head)}</h2>{content}</section>' for head, content in sections)
    page = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f'<body><h1>{html.escape(title)}</h1>{body}</body></html>'
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding='utf-8', errors='xmlcharrefreplace')  # names of files may be no text
