"""Instance masks in COCO JSON: polygons and run lengths (RLE) are checked and measured, and run lengths written."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmcondetr.datasets.annotation_checks import some
from mmcondetr.datasets.annotation_file import Annotation, AnnotationFile
from mmcondetr.datasets.polygons import LengthLeft, find_polygon_problem
from mmcondetr.errors import UserError

_EMPTY = (b'', b'null', b'[]', b'[[]]', b'{}')  # as exporters of boxes write
_MOST_GROUPS = 6  # 30 bits, more than any image needs; of longer numbers pycocotools' 32-bit shifts make others
_ROUNDING = 1.0  # pixels by which a small object's outline may lie beside its box


def check_segmentations(file: AnnotationFile, name: str) -> None:
    """Check the ``segmentation`` of every annotation of a COCO file whose structure is already checked.

    Polygons that extend beyond the image are clipped when they are rasterised; one entirely outside is an error. Valid
    polygons that are too small or thin for any pixel, of which COCO has a few, are a warning.

    Args:
        name: The file's name in messages.

    Raises:
        UserError: A segmentation is missing, malformed, empty, of another image size or beside its box, or the outlines
            of the file are too long: the first.
    """
    sizes = {image.id: (int(image.height), int(image.width)) for image in file.images}
    first, wrong, unpainted, left = '', 0, [], LengthLeft(file)
    for index, annotation in enumerate(file.annotations):
        segmentation, problem = _read(annotation, *sizes[annotation.image_id], left)
        problem = problem or _compare_with_box(segmentation, annotation.bbox)
        if problem:
            wrong += 1
            place = f'$.annotations[{index}].segmentation (id {annotation.id}, image {annotation.image_id})'
            first = first or f'{place} {problem}'
        elif isinstance(segmentation, list) and not _count_pixels(segmentation, *sizes[annotation.image_id]):
            unpainted.append(annotation.id)
    if wrong:
        others = f' ({wrong - 1} more such errors in this file.)' if wrong > 1 else ''
        raise UserError(
            f'{name}: {first}. Masks are trained or tested (with_mask=True), so every annotation needs a valid one: '
            f'correct the file, or leave the annotation out.{others}'
        )
    if unpainted:
        warnings.warn(
            f'{name}: {len(unpainted)} of {len(file.annotations)} annotations have polygons so small or thin that they '
            'contain no pixel. Their masks are empty: trained as such, and never found when mask AP is measured '
            f'(annotation ids {some(unpainted)}).',
            stacklevel=3,
        )


def area_of(annotation: Annotation, height: int, width: int) -> float:
    """The area in square pixels by which COCO's AP tells small from large objects.

    If the file has none, or 0, it is the number of pixels of the segmentation, as in COCO; without a valid
    segmentation, the area of the box. The file was checked: rasterising all its outlines ends.

    Args:
        height: Of the image, in pixels, as is ``width``.
    """
    if annotation.area is not None and annotation.area > 0:
        return annotation.area
    segmentation, problem = _read(annotation, height, width)
    pixels = 0 if problem else _count_pixels(segmentation, height, width)
    return pixels or annotation.bbox[2] * annotation.bbox[3]


def _read(annotation: Annotation, height: int, width: int, left: LengthLeft | None = None) -> tuple[Any, str | None]:
    """A segmentation and its problem, as the end of a sentence; None if there is none."""
    text = bytes(annotation.segmentation)
    try:
        segmentation = json.loads(text) if text else None  # msgspec does not read NaN
        return segmentation, _find_problem(segmentation, height, width, left)
    except (ValueError, RecursionError) as error:  # undecoded until here: it may be no text, or nested too deeply
        return None, f'cannot be read as JSON: {error}'


def _count_pixels(segmentation: list | dict, height: int, width: int) -> int:
    """The pixels of a valid segmentation."""
    if isinstance(segmentation, list):
        return int(rle.area(rle.merge(rle.frPyObjects(segmentation, height, width))))
    counts = segmentation['counts']
    return sum((decode_counts(counts) if isinstance(counts, str) else counts)[1::2])


def _find_problem(segmentation: Any, height: int, width: int, left: LengthLeft | None) -> str | None:
    """The problem of a segmentation, as the end of a sentence; None if there is none."""
    if segmentation is None:
        return 'is missing'
    if isinstance(segmentation, list):
        if not segmentation:
            return 'is empty: a list without polygons'
        problems = (find_polygon_problem(polygon, height, width, left, len(segmentation)) for polygon in segmentation)
        return next((problem for problem in problems if problem), None)
    if isinstance(segmentation, dict):
        return _find_rle_problem(segmentation, height, width)
    return f'is a {type(segmentation).__name__}, but must be a list of polygons or an object with size and counts (RLE)'


def _find_rle_problem(encoded: dict, height: int, width: int) -> str | None:
    counts, size = encoded.get('counts'), encoded.get('size')
    if size != [height, width]:
        return f'has size {size} (height, width), but the image is {[height, width]}'
    if isinstance(counts, str):
        counts = decode_counts(counts)
        if counts is None:
            return 'has counts that are not compressed run lengths of COCO'
    elif not isinstance(counts, list) or not all(isinstance(count, int) for count in counts):
        return 'has counts that are neither a string nor a list of whole numbers'
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        return f'has run lengths (counts) whose sum is {sum(counts)}, not height x width = {height * width}'
    if not sum(counts[1::2]):
        return 'is empty: no pixel is set'
    return None


def _compare_with_box(segmentation: list | dict, box: tuple[float, float, float, float]) -> str | None:
    """The problem of a valid segmentation that lies beside its box: one of them is of another image size, or place."""
    x, y, width, height = box
    if not (width > 0 and height > 0):  # left out, with a warning
        return None
    left, top, right, bottom = _extent(segmentation)
    near = _ROUNDING
    if left - near <= x + width and right + near >= x and top - near <= y + height and bottom + near >= y:
        return None
    return (
        f'covers x {left:g} to {right:g}, y {top:g} to {bottom:g}, which is beside its bbox, x {x:g} to {x + width:g}, '
        f'y {y:g} to {y + height:g}'
    )


def _extent(segmentation: list | dict) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of a valid segmentation, pixels."""
    if isinstance(segmentation, list):
        low = (min(min(polygon[axis::2]) for polygon in segmentation) for axis in (0, 1))
        high = (max(max(polygon[axis::2]) for polygon in segmentation) for axis in (0, 1))
        return (*low, *high)
    encoded = segmentation
    if isinstance(encoded['counts'], list):
        encoded = rle.frPyObjects(encoded, *encoded['size'])
    x1, y1, width, height = rle.toBbox(encoded).tolist()
    return x1, y1, x1 + width, y1 + height


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask (height, width) bool as COCO's compressed run lengths."""
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(size=encoded['size'], counts=encoded['counts'].decode('ascii'))


def decode_mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """The mask (height, width) bool of a valid segmentation: polygons, or run lengths of either form."""
    if isinstance(segmentation, list):
        encoded = rle.merge(rle.frPyObjects(segmentation, height, width))
    else:
        counts = segmentation['counts']
        encoded = rle.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation
    return rle.decode(encoded).astype(bool)


def count_outlines(file: AnnotationFile) -> int:
    """How many annotations have a segmentation that is not empty."""
    return sum(bytes(entry.segmentation).strip() not in _EMPTY for entry in file.annotations)


def decode_counts(text: str) -> list[int] | None:
    """Run lengths of COCO's compressed RLE, zeros first; None if the text is invalid.

    Each number is written in groups of five bits, lowest first, with 32 added if more follow and 48 added to all;
    from the fourth on, it is the difference from the number two places before. Numbers of more groups than pycocotools
    reads are invalid, even where the further ones are empty.
    """
    codes = np.frombuffer(text.encode('utf-8'), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(~codes & 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_GROUPS:
        return None
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)  # the highest bit is the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers.tolist()
