"""Checks the values of an annotation file as arrays: references, boxes, classes; and computes statistics."""

from __future__ import annotations

import json
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmcondetr.datasets.annotation_file import Annotation, AnnotationFile, Report
from mmcondetr.datasets.box_checks import doubt_boxes, explain_left_out
from mmcondetr.datasets.polygons import LengthLeft, find_wild_coordinates
from mmcondetr.datasets.repeated_entries import find_repeated_images, find_similar_names
from mmcondetr.runtime.encoded import MOST_PIXELS

_NO_TEXT = ('Cc', 'Cs', 'Zl', 'Zp')  # Unicode's categories: control, surrogate, separators of lines and paragraphs
_MOST_ID = 2**63 - 1
_SHOWN = 5  # examples named in a message
_SMALL, _LARGE = 32**2, 96**2  # COCO's bounds of areas, in square pixels


def some(values: Iterable[Any]) -> str:
    """The first few of many, for a message."""
    values = list(values)
    return ', '.join(str(value) for value in values[:_SHOWN]) + (', ...' if len(values) > _SHOWN else '')


def check_values(
    file: AnnotationFile,
    classes: Sequence[str] | None = None,
    training: bool = True,
    path: str = 'FILE',
    part: str = '',
    folder: str | None = None,
) -> Report:
    """Check the values of a file that has been read.

    Args:
        classes: The config's; without them, the file's own.
        training: Whether a file without any annotation is an error.
        path: The file's name in the commands that messages suggest; '' if it was made from other files.
        part: Of the config that names the file, for the same commands; '' if there is none.
        folder: That the names of its images are relative to; None if it is not known. Image files are only looked at
            where boxes are wrong and the images' sizes tell why.
    """
    report = Report(file=file)
    columns = Columns(file)
    _check_ids(file, report)
    _check_images(file, columns, report, path, part)
    _check_references(file, columns, report, path, part)
    names = [category.name for category in file.categories]
    _check_names(columns, names, report)
    _check_classes(columns, names, tuple(names) if classes is None else classes, report)
    if not file.annotations:
        message = 'the list is empty: there is nothing to learn and nothing to find'
        report.add('error' if training else 'warning', '$.annotations', message)
    elif all(annotation.iscrowd for annotation in file.annotations):
        message = f'is 1 in all {len(file.annotations)} annotations: crowds are neither learned nor to be found'
        report.add('error' if training else 'warning', '$.annotations[*].iscrowd', message)
    elif training:
        _check_ignored(file, report)
    kept = _check_boxes(file, columns, report, training, path, part, folder)
    _check_outlines(file, columns, report)
    _check_copies(columns, report)
    _check_filled_in(file, report)
    report.statistics = _statistics(file, columns, names, kept)
    return report


def _check_ignored(file: AnnotationFile, report: Report) -> None:
    """Refuse a training without anything to learn, and say so if that is most of it."""
    count, crowds = len(file.annotations), sum(bool(entry.iscrowd) for entry in file.annotations)
    ignored = [index for index, entry in enumerate(file.annotations) if entry.ignore and not entry.iscrowd]
    learned = count - crowds - len(ignored)
    if learned > count / 2:
        return
    name, first = ('ignore', ignored[0]) if len(ignored) >= crowds else ('iscrowd', '*')
    message = (
        f'{len(ignored)} of {count} annotations have ignore = 1 and {crowds} are crowds, which are not learned: '
        f'{learned or "none"} of {count} {"is" if learned < 2 else "are"} left'
    )
    report.add('warning' if learned else 'error', f'$.annotations[{first}].{name}', message)


class Columns:
    """The annotations (A) of a file as arrays.

    Attributes:
        boxes: (A, 4) as in the file.
        images: (A,) index of each annotation's image in the file, -1 if there is none.
        categories: (A,) likewise.
        sizes: (A, 2) width and height in pixels of their images, 0 if there is none.
        image_counts, category_counts: annotations of each image and each category.
    """

    def __init__(self, file: AnnotationFile) -> None:
        count = len(file.annotations)
        numbers = chain.from_iterable([annotation.bbox for annotation in file.annotations])
        self.boxes = np.fromiter(numbers, float, 4 * count).reshape(-1, 4)
        index = {image.id: number for number, image in enumerate(file.images)}
        self.images = np.array([index.get(entry.image_id, -1) for entry in file.annotations], dtype=int)
        index = {category.id: number for number, category in enumerate(file.categories)}
        self.categories = np.array([index.get(entry.category_id, -1) for entry in file.annotations], dtype=int)
        sizes = np.array([(image.width, image.height) for image in file.images] + [(0, 0)], dtype=float)
        self.sizes = sizes[self.images]
        self.image_counts = np.bincount(self.images[self.images >= 0], minlength=len(file.images))
        self.category_counts = np.bincount(self.categories[self.categories >= 0], minlength=len(file.categories))


def has_part_inside(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which boxes (x, y, width, height) have an area within their image and are kept by the data set; NaN has none."""
    with np.errstate(invalid='ignore'):
        first, last = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, :2] + boxes[:, 2:], sizes)
        return (last > first).all(axis=1)


def _check_ids(file: AnnotationFile, report: Report) -> None:
    for part in ('images', 'annotations', 'categories'):
        ids = [entry.id for entry in getattr(file, part)]
        large = next(
            (index for index, value in enumerate(ids) if isinstance(value, int) and abs(value) > _MOST_ID), None
        )
        if large is not None:
            message = (
                f'{_shorten(ids[large])} is no signed 64-bit integer, as ids must be: evaluation would confuse ids'
            )
            report.add('error', f'$.{part}[{large}].id', message)
        kinds = {type(value).__name__ for value in ids}
        if len(kinds) > 1:
            report.add('error', f'$.{part}', 'some ids are numbers and others are strings; write all as numbers')
        if len(set(ids)) != len(ids):
            repeated = [value for value, count in Counter(ids).items() if count > 1]
            message = f'ids in {part} repeat: {some(repeated)}. Each must appear once'
            report.add('error', f'$.{part}', message)


def _shorten(number: int) -> str:
    """A number of any length, for a message."""
    return str(number) if abs(number) < 10**24 else 'a number of 25 digits or more'


def _check_images(file: AnnotationFile, columns: Columns, report: Report, path: str, part: str) -> None:
    if not file.images:
        report.add('error', '$.images', 'the file lists no images')
    for index, image in enumerate(file.images):
        if not (image.width >= 1 and image.height >= 1 and image.width % 1 == 0 and image.height % 1 == 0):
            message = f"width and height of '{image.file_name}' are {image.width} and {image.height}: {_WHOLE}"
            report.add('error', f'$.images[{index}]', message)
            return
        if image.width * image.height > MOST_PIXELS:
            size = f'{image.width:g}x{image.height:g}'
            message = f"'{image.file_name}' is to have {size} pixels, and more than {MOST_PIXELS} are not decoded"
            report.add('error', f'$.images[{index}]', message)
            return
    repeated = find_repeated_images(file, columns.images)
    twice = [entry.file_name for entry in repeated if entry.alike]
    if twice:
        message = f'{len(twice)} files are listed more than once, with the same annotations: {some(twice)}'
        report.add('warning', '$.images', message)
    different = [entry for entry in repeated if not entry.alike]
    if different:
        first = different[0]
        ids = some(repr(file.images[index].id) for index in first.places)
        command = repair(path, '--merge-images', 'makes one entry of each file', part)
        message = (
            f'{len(different)} files are listed more than once, with different annotations: in each entry, the objects '
            f"of the others would be background. The first is '{first.file_name}' (ids {ids}, with "
            f'{some(first.counts)} annotations): {command}'
        )
        report.add('error', f'$.images[{first.places[1]}]', message)


_WHOLE = 'they must be whole numbers of pixels, 1 or more'


def _check_references(file: AnnotationFile, columns: Columns, report: Report, path: str, reader: str) -> None:
    for part, article, name, found in (
        ('images', 'an', 'image_id', columns.images),
        ('categories', 'a', 'category_id', columns.categories),
    ):
        absent = np.flatnonzero(found < 0)
        if not len(absent):
            continue
        values = {getattr(file.annotations[index], name) for index in absent}
        values = sorted(values, key=lambda value: (isinstance(value, str), value))
        message = (
            f'{len(absent)} of {len(file.annotations)} annotations have {article} {name} that is in none of the '
            f'{part}: {some(repr(value) for value in values)}'
        )
        known = {entry.id for entry in getattr(file, part)}
        report.add('error', f'$.annotations[{absent[0]}].{name}', message + _cause(values, known, part, path, reader))


def _cause(values: list, known: set, part: str, path: str, reader: str) -> str:
    """The likely cause of references that point nowhere."""
    if {str(value) for value in values} <= {str(value) for value in known}:
        kinds = 'strings', 'numbers'
        one, other = kinds if isinstance(values[0], str) else kinds[::-1]
        command = repair(path, '--integer-ids', 'writes integers', reader)
        return f'. They are {one} where the {part} have {other}: {command}'
    if part == 'categories' and values == [0] and known and min(known, key=str) == 1:
        command = repair(path, '--add-to-category-ids 1', 'counts both from 1', reader)
        return f'. They may count from 0 and the categories from 1, which would shift every class: {command}'
    return ''


def repair(path: str, options: str, effect: str, part: str = '') -> str:
    """The command that repairs a file, what it does, and how a run then gets to read the new file.

    Args:
        path: '' for data that were converted from other files, which must be corrected themselves.
        part: of the config that names the file, 'train', 'val' or 'test'; '' if there is no config yet.
    """
    if not path:
        return 'correct the labels that were converted'
    target = f'{path.removesuffix(".json")}_fixed.json'
    command = f"'mmcondetr convert-annotations {shlex.quote(path)} {shlex.quote(target)} {options}'"
    return f'{command} {effect}; {_name_new_file(target, part)}'


def _name_new_file(path: str, part: str) -> str:
    """What to do once a repaired file is written: nothing reads it until the config names it."""
    if not part:
        return 'then pass the new file to mmcondetr init'
    fields = [f'{part}_dataloader.dataset.ann_file'] + [f'{part}_evaluator.ann_file'] * (part != 'train')
    file = shlex.quote(os.path.abspath(path))
    also = '; for mmcondetr test, the same with test_' if part == 'val' else ''
    options = ' '.join(f'{field}={file}' for field in fields)
    return f"then let the config name the new file, or pass '--cfg-options {options}'{also}"


def _check_names(columns: Columns, names: list[str], report: Report) -> None:
    for index, name in enumerate(names):
        wrong = [char for char in name if unicodedata.category(char) in _NO_TEXT]
        if wrong:
            message = (
                f'{ascii(name)} is no name of a class: {ascii(wrong[0])} is a control character, or no character at '
                'all, which could be neither shown nor written'
            )
            report.add('error', f'$.categories[{index}].name', message)
    for group in find_similar_names(names):
        shown = some(f'{names[index]!r} ({columns.category_counts[index]})' for index in group)
        message = (
            f'{shown} are {len(group)} classes whose names differ only in case or blanks (with their numbers of '
            'annotations): if they mean one class, give it one name and one id'
        )
        report.add('warning', f'$.categories[{group[1]}].name', message)


def _check_classes(columns: Columns, names: list[str], classes: Sequence[str], report: Report) -> None:
    line = f'metainfo=dict(classes={tuple(names)!r})'
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        report.add('error', '$.categories', f'names repeat: {some(twice)}. Each must appear once')
    missing = [name for name in classes if name not in names]
    extra = [name for name in names if name not in classes]
    if missing:
        report.add(
            'error',
            '$.categories',
            f'the classes of the config are not those of the file. Not in the file: {some(missing)}. In the file only: '
            f'{some(extra) or "none"}. The data set needs {line}, and model.bbox_head.num_classes={len(names)}',
        )
        return
    kept = tuple(name for name in names if name in classes)
    if kept != tuple(classes) and not twice:
        report.add(
            'error',
            '$.categories',
            "metainfo['classes'] has the file's classes in another order, so labels and names would disagree. Write "
            f'metainfo=dict(classes={kept!r})',
        )
    boxes_of = dict(zip(names, columns.category_counts.tolist()))
    lost = sum(boxes_of[name] for name in extra)
    if lost:
        shown = some(f'{name} ({boxes_of[name]})' for name in extra if boxes_of[name])
        report.add(
            'warning',
            '$.categories',
            f"{lost} of {len(columns.boxes)} annotations are of categories that are not in metainfo['classes'] and are "
            f'left out: {shown}',
        )
    empty = [name for name in kept if not boxes_of[name]]
    if empty and len(columns.boxes):
        report.add('warning', '$.categories', f'{len(empty)} classes have no annotation: {some(empty)}')


def _check_boxes(
    file: AnnotationFile,
    columns: Columns,
    report: Report,
    training: bool,
    path: str,
    part: str,
    folder: str | None,
) -> np.ndarray:
    """Check the boxes; returns which of them the data set keeps (A,)."""
    boxes, sizes = columns.boxes, columns.sizes
    known, kept = (sizes > 0).all(axis=1), has_part_inside(boxes, sizes)
    doubt = doubt_boxes(boxes, sizes, columns.images, [image.file_name for image in file.images], folder)
    if doubt is not None:
        place = '*' if doubt.first is None else doubt.first
        command = f': {repair(path, doubt.options, doubt.effect, part)}' if doubt.options else ''
        report.add(doubt.level, f'$.annotations[{place}].bbox', doubt.message + command)
        if doubt.level == 'error':  # what follows would be about boxes that are not meant so
            return kept
    bad = np.flatnonzero(known & ~kept)
    if len(bad):
        ids = some(file.annotations[index].id for index in bad)
        none = training and known.all() and not kept.any()
        cause = explain_left_out(boxes[known], sizes[known], kept[known])
        message = f'{len(bad)} boxes lie outside their image or have no area and are left out (annotation ids {ids})'
        message += ', so none is left' * none + f'. Of {len(boxes)} these are many. {cause}' * bool(cause)
        report.add('error' if none or cause else 'warning', f'$.annotations[{bad[0]}].bbox', message)
    clipped = kept & ((boxes[:, :2] < -1).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] > sizes + 1).any(axis=1))
    if clipped.any() and doubt is None:
        first = int(np.flatnonzero(clipped)[0])
        message = f'{clipped.sum()} boxes extend beyond their image by more than a pixel and are clipped in training'
        report.add('warning', f'$.annotations[{first}].bbox', message)
    return kept


def _check_outlines(file: AnnotationFile, columns: Columns, report: Report) -> None:
    """Refuse outlines that rasterising would crash on, where one is to fill in the area.

    All others stay undecoded until masks are asked for, when segmentation.py checks each of them.
    """
    first, wrong, left = None, 0, None
    for index, (entry, (width, height)) in enumerate(zip(file.annotations, columns.sizes)):
        text = bytes(entry.segmentation)
        if not text.startswith(b'[') or not _lacks(entry, 'area') or not 0 < width * height <= MOST_PIXELS:
            continue
        try:
            polygons = json.loads(text)
        except (ValueError, RecursionError):  # no outline: the area is that of the box
            continue
        left = left or LengthLeft(file)
        outlines = [polygon for polygon in polygons if isinstance(polygon, list)]
        problems = (find_wild_coordinates(outline, height, width, left, len(outlines)) for outline in outlines)
        problem = next(filter(None, problems), None)
        if problem:
            wrong += 1
            first = first or (f'$.annotations[{index}].segmentation', f'(id {entry.id}) {problem}')
    if wrong:
        others = f', and so do {wrong - 1} others' if wrong > 1 else ''
        message = f'{first[1]}{others}. The area, which the annotation lacks, cannot be taken from it'
        report.add('error', first[0], message)


def _check_copies(columns: Columns, report: Report) -> None:
    """Warn of copies, found by a weighted sum of image, category and box; rare collisions are harmless."""
    parts = np.column_stack([columns.images, columns.categories, columns.boxes])
    keys = parts @ np.array([np.pi, np.e, 1.1, np.sqrt(2), np.sqrt(3), np.sqrt(5)])
    order = np.argsort(keys, kind='stable')
    same = (parts[order[1:]] == parts[order[:-1]]).all(axis=1)
    if same.any():
        first = int(order[1:][same].min())
        message = f'{same.sum()} annotations are copies of others: same image, category and box'
        report.add('warning', f'$.annotations[{first}]', message)


def _check_filled_in(file: AnnotationFile, report: Report) -> None:
    area = 'that of the segmentation or, without one, of the box'
    for name, what, value in (('area', 'area, or 0', area), ('iscrowd', 'iscrowd', '0')):
        absent = [index for index, entry in enumerate(file.annotations) if _lacks(entry, name)]
        if absent:
            message = f'{len(absent)} of {len(file.annotations)} annotations have no {what}: taken as {value}'
            report.add('warning', f'$.annotations[{absent[0]}].{name}', message)


def _lacks(entry: Annotation, name: str) -> bool:
    if name == 'area' and entry.area is not None:  # 0 is right for a box without area, which is left out
        return not entry.area > 0 and entry.bbox[2] * entry.bbox[3] > 0
    return getattr(entry, name) is None


def _statistics(file: AnnotationFile, columns: Columns, names: list[str], kept: np.ndarray) -> dict[str, Any]:
    areas = (columns.boxes[:, 2] * columns.boxes[:, 3])[kept]
    small, large = int((areas < _SMALL).sum()), int((areas >= _LARGE).sum())
    widths, heights = ([getattr(image, side) for image in file.images] for side in ('width', 'height'))
    return dict(
        images=len(file.images),
        images_without_boxes=int((columns.image_counts == 0).sum()),
        annotations=len(file.annotations),
        crowds=sum(bool(annotation.iscrowd) for annotation in file.annotations),
        left_out=int((~kept).sum()),
        boxes_per_class=dict(zip(names, columns.category_counts.tolist())),
        boxes_per_image=dict(mean=len(areas) / max(len(file.images), 1), max=int(columns.image_counts.max(initial=0))),
        boxes_by_area=dict(small=small, medium=len(areas) - small - large, large=large),
        image_width=dict(min=min(widths, default=0), max=max(widths, default=0)),
        image_height=dict(min=min(heights, default=0), max=max(heights, default=0)),
    )
