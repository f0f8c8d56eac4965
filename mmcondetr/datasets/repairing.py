"""Repairs an annotation file: boxes in another format, ids stored as strings, category ids counted from 0."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from mmcondetr.datasets.annotation_file import read_annotations
from mmcondetr.datasets.box_formats import FORMATS, MEANINGS, to_xywh
from mmcondetr.errors import UserError
from mmcondetr.writing import replacing


def convert_annotations(
    source: str | os.PathLike,
    target: str | os.PathLike,
    boxes: str | None = None,
    integer_ids: bool = False,
    add_to_category_ids: int = 0,
    force: bool = False,
) -> str:
    """Write a copy of a COCO file with boxes as (x, y, width, height) in pixels; everything else is unchanged.

    Args:
        boxes: The format of the file's boxes: 'xyxy', 'cxcywh', 'xywh01', 'xyxy01' or 'cxcywh01' (01: as
            fractions of the image). ``area`` of annotations without a segmentation becomes the new box's.
        integer_ids: Write ids and references that are strings of digits as integers.
        add_to_category_ids: Add this to the annotations' ``category_id``; 1 where they count from 0 and the categories
            from 1.
        force: Replace ``target``.

    Returns:
        What was done, as one line.

    Raises:
        UserError: The source cannot be read, there is nothing to do, the target exists, or a box belongs to no image.
    """
    source, target = os.fspath(source), os.fspath(target)
    if boxes is not None and boxes not in FORMATS:
        raise UserError(f"--boxes '{boxes}': must be one of {', '.join(FORMATS)}.")
    if boxes is None and not integer_ids and not add_to_category_ids:
        raise UserError('Nothing to convert: pass --boxes, --integer-ids or --add-to-category-ids.')
    if os.path.exists(target) and (not force or os.path.samefile(source, target)):
        raise UserError(f"'{target}' already exists: name another file, or pass --force to replace it.")
    read_annotations(source)  # one clear error for a file that is not COCO
    with open(source, encoding='utf-8-sig') as file:
        data = json.load(file)
    done = []
    if integer_ids:
        done.append(f'{_write_integers(data)} ids converted to integers')
    if add_to_category_ids:
        for entry in data['annotations']:
            if not isinstance(entry['category_id'], int):
                raise UserError(
                    f"--add-to-category-ids: '{source}' has the category_id {entry['category_id']!r}, which is not an "
                    'integer: pass --integer-ids, too.'
                )
            entry['category_id'] += add_to_category_ids
        done.append(f'{add_to_category_ids} added to the category_id of {len(data["annotations"])} annotations')
    if boxes is not None:
        _convert_boxes(data, boxes, source)
        done.append(f'{len(data["annotations"])} boxes converted from {MEANINGS[boxes]} to {MEANINGS["xywh"]}')
    os.makedirs(os.path.dirname(target) or '.', exist_ok=True)
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(data), encoding='utf-8')
    return f'wrote {target}: {"; ".join(done)}'


def _write_integers(data: dict[str, Any]) -> int:
    places = dict(images=('id',), categories=('id',), annotations=('id', 'image_id', 'category_id'))
    changed = 0
    for part, names in places.items():
        for entry in data[part]:
            for name in names:
                value = entry[name]
                if isinstance(value, str) and value.isascii() and value.isdigit():
                    entry[name] = int(value)
                    changed += 1
    return changed


def _convert_boxes(data: dict[str, Any], form: str, source: str) -> None:
    size_of = {image['id']: (image['width'], image['height']) for image in data['images']}
    for index, entry in enumerate(data['annotations']):
        if entry['image_id'] not in size_of:
            raise UserError(
                f"Annotation file '{source}': $.annotations[{index}].image_id {entry['image_id']!r} is in none of the "
                'images, so its size is unknown.'
            )
    sizes = np.array([size_of[entry['image_id']] for entry in data['annotations']], dtype=float).reshape(-1, 2)
    found = np.array([entry['bbox'] for entry in data['annotations']], dtype=float).reshape(-1, 4)
    for entry, box in zip(data['annotations'], to_xywh(found, sizes, form).round(4).tolist()):
        entry['bbox'] = box
        if not entry.get('segmentation'):
            entry['area'] = round(box[2] * box[3], 4)
