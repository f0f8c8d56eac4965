"""Checks of every annotation and image of a data set before training."""

from __future__ import annotations

import hashlib
import os
import shlex
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from mmcondetr.datasets.annotation_checks import repair, some
from mmcondetr.datasets.annotation_file import AnnotationFile
from mmcondetr.datasets.annotations import examine
from mmcondetr.datasets.image_files import describe_sizes
from mmcondetr.datasets.load_image import LoadImage, WrongSizeError
from mmcondetr.datasets.segmentation import check_segmentations
from mmcondetr.errors import UserError

SHOWN = 5  # examples per message
THREADS = min(16, 2 * (os.cpu_count() or 1))  # decoding releases the GIL


@dataclass
class Part:
    """The findings for the training, validation or test data.

    Attributes:
        name: 'train', 'val' or 'test'.
        ann_file: its annotation file.
        errors: one line each; training or evaluation would fail or be wrong.
        warnings: one line each.
        statistics: see :func:`mmcondetr.datasets.annotations.examine`.
        file: the annotations, None if they cannot be read or are panoptic.
        digests: SHA-256 by image path.
        looks: perceptual hash, by image path.
    """

    name: str
    ann_file: str
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    file: AnnotationFile | None = None
    digests: dict[str, str] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)


def look_at_annotations(name: str, ann_file: str, classes: Sequence[str], folder: str, masks: bool = False) -> Part:
    """Check the annotation file of a part, with its segmentations if ``masks`` are trained or measured.

    Args:
        folder: of the images.
    """
    part = Part(name, ann_file)
    report = examine(ann_file, tuple(classes), training=name == 'train', part=name, folder=folder)
    part.errors = [f"{name}, '{ann_file}': {finding}" for finding in report.errors]
    part.warnings = [f"{name}, '{ann_file}': {finding}" for finding in report.warnings]
    part.statistics, part.file = report.statistics, report.file
    if masks and not report.errors:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter('always')
                check_segmentations(report.file, f"{name}, '{ann_file}'")
            part.warnings += [str(warning.message) for warning in caught]
        except UserError as error:
            part.errors.append(str(error))
    return part


def image_entries(part: Part, folder: str) -> list[dict[str, Any]]:
    """Path, width and height of every image of a part."""
    return [
        dict(
            img_path=os.path.join(folder, image.file_name),
            width=int(image.width),
            height=int(image.height),
            ann_file=part.ann_file,
        )
        for image in part.file.images
    ]


def look_at_images(part: Part, entries: Sequence[dict[str, Any]], folder: str) -> Iterator[str]:
    """Decode every image on several threads, adding to the part's findings; yields each path when it is done.

    Images of a wrong size have one cause and one repair, and so have missing ones: they are counted in one line.

    Args:
        entries: see :func:`image_entries`.
        folder: of the images.
    """
    wrong, missing = [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for entry, (error, digest, look) in zip(entries, pool.map(_check_image, entries)):
            path = entry['img_path']
            if isinstance(error, WrongSizeError):
                wrong.append((path, error))
            elif isinstance(error, FileNotFoundError):
                missing.append(path)
            elif error is not None:
                part.errors.append(f'{part.name}: {error}')
            else:
                part.digests[path], part.looks[path] = digest, look
            yield path
    if missing:
        part.errors.append(
            f"{part.name}: {len(missing)} of {len(entries)} image files of '{part.ann_file}' do not exist: "
            f"{some(missing)}. Check data_root and data_prefix['img'] in the config"
        )
    if wrong:
        part.errors.append(f'{part.name}: {_describe_sizes(part, wrong, len(entries), folder)}')


def _describe_sizes(part: Part, wrong: Sequence[tuple[str, WrongSizeError]], count: int, folder: str) -> str:
    command = 'correct width and height there'  # in a panoptic file, which the command below does not read
    if part.file is not None:
        command = repair(part.ann_file, f'--image-sizes {shlex.quote(folder)}', "reads the images' sizes", part.name)
    found = [(os.path.relpath(path, folder), error.loaded, error.annotated) for path, error in wrong]
    return describe_sizes(found, count, part.ann_file, command)


def _check_image(entry: dict[str, Any]) -> tuple[Exception | None, str, int]:
    """(error or None, SHA-256 of the file, perceptual hash)."""
    try:
        if not os.path.isfile(entry['img_path']):
            raise FileNotFoundError(entry['img_path'])
        pixels = LoadImage().transform(dict(entry))['img']
        with open(entry['img_path'], 'rb') as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    except (UserError, OSError) as error:
        return error, '', 0
    grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), (17, 16), interpolation=cv2.INTER_AREA).astype(int)
    steps = grey[:, 1:] - grey[:, :-1]
    if np.abs(steps).max() < 3:  # uniform images all look alike
        return None, digest, 0
    return None, digest, int(''.join('1' if step > 0 else '0' for step in steps.ravel()), 2)


def find_copies(parts: Sequence[Part]) -> tuple[list[str], list[str]]:
    """Find duplicate images.

    Returns:
        - errors: the same file in training and in validation or test, which invalidates the measured AP;
        - warnings: the same file twice within a part, and similar images in different parts.
    """
    errors, warnings = [], []
    for part in parts:
        groups = _groups(part.digests)
        copies = [paths for paths in groups.values() if len(paths) > 1]
        if copies:
            count = sum(len(paths) - 1 for paths in copies)
            are = '1 image is a copy of another' if count == 1 else f'{count} images are copies of others'
            warnings.append(f'{part.name}: {are}, such as {_names(copies[0])}')
    by_name = {part.name: part for part in parts}
    train = by_name.get('train')
    for name in ('val', 'test'):
        other = by_name.get(name)
        if train is None or other is None or other.ann_file == train.ann_file:
            continue
        same = _pairs(train.digests, other.digests)
        if same:
            errors.append(f'{_are(len(same))} in train and in {name}, which must not share any: {_names(same[0])}')
        known = {path for pair in same for path in pair}
        alike = [pair for pair in _pairs(train.looks, other.looks) if not known & set(pair)]
        if alike:
            warnings.append(f'{len(alike)} images of {name} look like one of train, such as {_names(alike[0])}')
    return errors, warnings


def _are(count: int) -> str:
    return f'{count} image is' if count == 1 else f'{count} images are'


def _groups(values: dict[str, Any]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = {}
    for path, value in values.items():
        groups.setdefault(value, []).append(path)
    return groups


def _pairs(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, str]]:
    first = {value: paths[0] for value, paths in _groups(one).items() if value}
    return [(first[value], path) for path, value in other.items() if value in first]


def _names(paths: Sequence[str]) -> str:
    return ' and '.join(f"'{path}'" for path in paths[:SHOWN])
