"""Checkpoints whose archive is whole and whose pickle is another."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable


def rewritten(path: str | os.PathLike, change: Callable[[bytes], bytes], **options) -> None:
    """Write the archive again with its pickle changed; ``options`` are ZipFile's."""
    with zipfile.ZipFile(path) as archive:
        records = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, 'w', **options) as archive:
        for name, content in records.items():
            archive.writestr(name, change(content) if name.endswith('data.pkl') else content)
