"""Repairs an annotation file: boxes of another format or scale, swapped image sizes, ids, images listed twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mmcondetr.datasets.annotation_file import read_annotations
from mmcondetr.datasets.box_formats import FORMATS, MEANINGS, of_this_format, to_xywh
from mmcondetr.datasets.image_files import read_size
from mmcondetr.errors import UserError
from mmcondetr.writing import replacing


def convert_annotations(
    source: str | os.PathLike,
    target: str | os.PathLike,
    boxes: str | None = None,
    integer_ids: bool = False,
    add_to_category_ids: int = 0,
    force: bool = False,
    *,
    mixed: bool = False,
    scale: float | None = None,
    clip: bool = False,
    image_sizes: str | os.PathLike | None = None,
    merge_images: bool = False,
) -> str:
    """Write a copy of a COCO file with boxes as (x, y, width, height) in pixels; everything else is unchanged.

    Args:
        boxes: The format of the file's boxes, one of ``FORMATS`` (01: as fractions of the image, 100: in percent).
            ``area`` of annotations without a segmentation becomes the new box's.
        integer_ids: Write ids and references that are strings of digits as integers.
        add_to_category_ids: Add this to the annotations' ``category_id``; 1 where they count from 0 and the categories
            from 1.
        force: Replace ``target``.
        mixed: Convert or scale only boxes that are wrong for certain: fractions, for such a format, otherwise all of
            each image in which a box extends beyond the right or lower border.
        scale: Multiply boxes, areas and outlines by this, where images were resized without them.
        clip: Clip boxes to their images, and drop annotations of which nothing is left.
        image_sizes: Folder of the images; their files' sizes replace ``width`` and ``height``.
        merge_images: Make one entry of those that name the same file, with the annotations of all.

    Returns:
        What was done, as one line.

    Raises:
        UserError: The source cannot be read, there is nothing to do, the target exists, a box belongs to no image, an
            image cannot be read, entries to be merged differ in size, or a mask cannot be scaled.
    """
    source, target = os.fspath(source), os.fspath(target)
    if boxes is not None and boxes not in FORMATS:
        raise UserError(f"--boxes '{boxes}': must be one of {', '.join(FORMATS)}.")
    if scale is not None and not 0 < scale < float('inf'):
        raise UserError(f'--scale {scale:g}: must be a number above 0.')
    if mixed and boxes is None and scale is None:
        raise UserError('--mixed needs --boxes or --scale.')
    if mixed and boxes is not None and boxes.endswith('100'):
        raise UserError(f'--mixed --boxes {boxes}: percentages among pixels cannot be told apart from them.')
    others = integer_ids, add_to_category_ids, clip, image_sizes, merge_images
    if boxes is None and scale is None and not any(others):
        raise UserError(
            'Nothing to convert: pass --boxes, --scale, --clip, --image-sizes, --merge-images, --integer-ids or '
            '--add-to-category-ids.'
        )
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
    if image_sizes is not None:
        done.append(f'width and height of {_write_sizes(data, Path(image_sizes))} images corrected')
    if merge_images:
        done.append(_merge_images(data, source))
    if boxes is not None or scale is not None or clip:
        done += _change_boxes(data, source, boxes, scale, clip, mixed)
    os.makedirs(os.path.dirname(target) or '.', exist_ok=True)
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(data), encoding='utf-8')
    return f'wrote {target}: {"; ".join(done)}. Name it in the config, in place of {source}'


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


def _write_sizes(data: dict[str, Any], folder: Path) -> int:
    """The sizes of the image files; returns how many the file had wrong."""
    changed = 0
    for image in data['images']:
        width, height = read_size(folder / image['file_name'])
        changed += (image['width'], image['height']) != (width, height)
        image.update(width=width, height=height)
    return changed


def _merge_images(data: dict[str, Any], source: str) -> str:
    """Keep the first entry of each file and give it all annotations; returns what was done.

    An annotation that an earlier entry of the file has, too, is dropped; copies within an entry are not.
    """
    first: dict[str, dict[str, Any]] = {}
    merged_id = {}
    for index, image in enumerate(data['images']):
        kept = first.setdefault(image['file_name'], image)
        sizes = [(entry['width'], entry['height']) for entry in (kept, image)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"Annotation file '{source}': $.images[{index}]: '{image['file_name']}' has {sizes[1][0]} x "
                f'{sizes[1][1]} pixels here and {sizes[0][0]} x {sizes[0][1]} in an entry before: pass --image-sizes, '
                'too, if the boxes fit the image file, or remove the wrong entry.'
            )
        merged_id[image['id']] = kept['id']
    owners: dict[str, Any] = {}
    annotations = []
    for entry in data['annotations']:
        before, entry['image_id'] = entry['image_id'], merged_id.get(entry['image_id'], entry['image_id'])
        told = [entry.get(key) for key in ('image_id', 'category_id', 'bbox', 'segmentation')]
        if owners.setdefault(json.dumps([*told, bool(entry.get('iscrowd'))]), before) == before:
            annotations.append(entry)
    merged, dropped = len(data['images']) - len(first), len(data['annotations']) - len(annotations)
    data['images'], data['annotations'] = list(first.values()), annotations
    return f'{merged} entries merged into others of the same file, {dropped} annotations dropped that both had'


def _change_boxes(
    data: dict[str, Any], source: str, form: str | None, scale: float | None, clip: bool, mixed: bool
) -> list[str]:
    """Convert, scale and clip; returns what was done."""
    entries = data['annotations']
    size_of = {image['id']: (image['width'], image['height']) for image in data['images']}
    for index, entry in enumerate(entries):
        if entry['image_id'] not in size_of:
            raise UserError(
                f"Annotation file '{source}': $.annotations[{index}].image_id {entry['image_id']!r} is in none of the "
                'images, so its size is unknown.'
            )
    sizes = np.array([size_of[entry['image_id']] for entry in entries], dtype=float).reshape(-1, 2)
    boxes = np.array([entry['bbox'] for entry in entries], dtype=float).reshape(-1, 4)
    chosen, doubtful = np.ones(len(boxes), bool), 0
    if mixed:
        numbers = {number: index for index, number in enumerate(size_of)}
        images = np.array([numbers[entry['image_id']] for entry in entries], dtype=int)
        chosen, doubtful = of_this_format(boxes, sizes, images, form)
    done, changed = [], chosen.copy()
    if form is not None:
        boxes[chosen] = to_xywh(boxes[chosen], sizes[chosen], form)
        done.append(f'{chosen.sum()} boxes converted from {MEANINGS[form]} to {MEANINGS["xywh"]}')
    if scale is not None:
        boxes[chosen] *= scale
        for index in np.flatnonzero(chosen):
            _scale_outlines(entries[index], scale, f"Annotation file '{source}': $.annotations[{index}].segmentation")
        done.append(f'{chosen.sum()} boxes multiplied by {scale:g}')
    if doubtful:
        done.append(f'{doubtful} boxes left as they are, though their images may have the other format: look at them')
    if clip:
        ends = np.minimum(boxes[:, :2] + boxes[:, 2:], sizes)
        first = np.maximum(boxes[:, :2], 0)
        inside = np.hstack([first, ends - first])
        clipped = np.abs(inside - boxes).max(axis=1, initial=0) > 1e-6
        boxes, changed = inside, (changed if form or scale else False) | clipped
    for index in np.flatnonzero(changed):
        entry, box = entries[index], boxes[index].round(4).tolist()
        entry['bbox'] = box
        if not entry.get('segmentation'):
            entry['area'] = round(box[2] * box[3], 4)
    if clip:
        kept = (boxes[:, 2:] > 0).all(axis=1)
        data['annotations'] = [entry for entry, keep in zip(entries, kept) if keep]
        done.append(f'{(clipped & kept).sum()} boxes clipped to their image, {(~kept).sum()} outside it dropped')
    return done


def _scale_outlines(entry: dict[str, Any], scale: float, where: str) -> None:
    outlines = entry.get('segmentation')
    if not outlines:
        return
    if not isinstance(outlines, list):
        raise UserError(f'{where}: a mask as run lengths cannot be scaled, only outlines can.')
    entry['segmentation'] = [[side * scale for side in outline] for outline in outlines]
    if entry.get('area') is not None:
        entry['area'] *= scale**2
