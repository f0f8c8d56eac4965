"""Reads and writes the COCO JSONs of users' own data, without replacing what another program or call has written."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from mmcondetr.datasets.annotation_file import AnnotationError, parse_json
from mmcondetr.errors import UserError
from mmcondetr.writing import replacing

WRITER = 'mmcondetr init'


def is_coco(content: Any) -> bool:
    """Whether a JSON is a user's own file in COCO format, not one that ``mmcondetr init`` made of it."""
    is_set = isinstance(content, dict) and {'images', 'annotations', 'categories'} <= set(content)
    return is_set and not _is_ours(content)


def _is_ours(content: Any) -> bool:
    return isinstance(content, dict) and content.get('written_by') == WRITER


def parse_file(path: Path) -> Any:
    """Read a JSON.

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"Annotation file '{path}' cannot be read: {error.strerror}.") from error
    except AnnotationError as error:
        raise UserError(f"Annotation file '{path}' {error}.") from error


def load_json(path: Path) -> dict[str, Any]:
    """Read a COCO JSON that has its three lists; ``mmcondetr check`` checks the entries.

    Raises:
        UserError: it cannot be read, or is not in COCO format.
    """
    content = parse_file(path)
    parts = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
        raise UserError(f"Annotation file '{path}' is not in COCO format: it needs the lists {', '.join(parts)}.")
    for part, keys in zip(parts, (('id', 'file_name'), ('image_id', 'category_id', 'bbox'), ('id', 'name'))):
        for index, entry in enumerate(content[part]):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise UserError(f"Annotation file '{path}': {part}[{index}] lacks {', '.join(lacking)}.")
    if not content['images']:
        raise UserError(f"Annotation file '{path}' lists no images.")
    return content


def to_text(content: dict[str, Any]) -> str:
    """The text of a file that :func:`write_all` recognises as one of ours."""
    return json.dumps(dict(content, written_by=WRITER))


def write_all(texts: dict[Path, str], force: bool = False) -> None:
    """Write all files, or none: one that exists may be another's, or belong to a config that was written earlier.

    Args:
        texts: path -> text of :func:`to_text`.
        force: replace files of ours that have another content; those of other programs never are.

    Raises:
        UserError: a file is in the way, or cannot be read or written.
    """
    new = {path: text for path, text in texts.items() if not _is_in_place(path, text, force)}
    for path, text in new.items():
        try:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding='utf-8')
        except OSError as error:
            raise UserError(f"'{path}' cannot be written: {error.strerror}.") from error


def _is_in_place(path: Path, text: str, force: bool) -> bool:
    """Whether the file has this content already; raises if it has one that must not be replaced."""
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}.") from error
    if before == text.encode():
        return True
    try:
        is_ours = _is_ours(parse_json(before))
    except AnnotationError:
        is_ours = False
    if not is_ours:
        raise UserError(
            f"'{path}' exists and was not written by mmcondetr init, which would write its JSON there: move the file, "
            'or pass it as DATA to use it.'
        )
    if not force:
        raise UserError(
            f"'{path}' exists, from an earlier mmcondetr init of other labels or another split, and a config may use "
            'it: pass --force to replace it, or move it.'
        )
    return False


def count_boxes(content: dict[str, Any]) -> Counter[str]:
    """Number of boxes with an area by category name, including categories without any."""
    names = {category['id']: category['name'] for category in content['categories']}
    counts = Counter({name: 0 for name in names.values()})
    counts.update(names[entry['category_id']] for entry in content['annotations'] if _has_area(*entry['bbox']))
    return counts


def _has_area(x: float, y: float, width: float, height: float) -> bool:
    return width > 0 and height > 0 and math.isfinite(x + y + width + height)
