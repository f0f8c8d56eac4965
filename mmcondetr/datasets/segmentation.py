"""Instance masks in COCO JSON: checks before training of polygons and run lengths (RLE), and writing run lengths."""

from __future__ import annotations

import json
import math
from numbers import Real
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmcondetr.datasets.annotation_file import AnnotationFile
from mmcondetr.errors import UserError


def check_segmentations(file: AnnotationFile, name: str) -> None:
    """Check the ``segmentation`` of every annotation of a COCO file whose structure is already checked.

    Polygons that extend beyond the image are clipped when they are rasterised; one entirely outside is an error.

    Args:
        name: The file's name in messages.

    Raises:
        UserError: A segmentation is missing, malformed, empty or of another image size; names the first.
    """
    sizes = {image.id: (int(image.height), int(image.width)) for image in file.images}
    for index, annotation in enumerate(file.annotations):
        text = bytes(annotation.segmentation)
        try:
            segmentation = json.loads(text) if text else None  # msgspec does not read NaN
            problem = _find_problem(segmentation, *sizes[annotation.image_id])
        except (ValueError, RecursionError) as error:  # undecoded until here: it may be no text, or nested too deeply
            problem = f'cannot be read as JSON: {error}'
        if problem:
            raise UserError(
                f'{name}: $.annotations[{index}].segmentation (id {annotation.id}, image {annotation.image_id}) '
                f'{problem}. Masks are trained or tested (with_mask=True), so every annotation needs a valid one: '
                'correct the file, or leave the annotation out.'
            )


def _find_problem(segmentation: Any, height: int, width: int) -> str | None:
    """The problem of a segmentation, as the end of a sentence; None if there is none."""
    if segmentation is None:
        return 'is missing'
    if isinstance(segmentation, list):
        if not segmentation:
            return 'is empty: a list without polygons'
        problems = (_find_polygon_problem(polygon, height, width) for polygon in segmentation)
        return next((problem for problem in problems if problem), None)
    if isinstance(segmentation, dict):
        return _find_rle_problem(segmentation, height, width)
    return f'is a {type(segmentation).__name__}, but must be a list of polygons or an object with size and counts (RLE)'


def _find_polygon_problem(polygon: Any, height: int, width: int) -> str | None:
    if not isinstance(polygon, list) or not all(isinstance(value, Real) and math.isfinite(value) for value in polygon):
        return 'holds a polygon that is not a list of finite numbers x1, y1, x2, y2, ...'
    if len(polygon) < 6 or len(polygon) % 2:
        return f'holds a polygon of {len(polygon)} numbers; it needs three points or more, x and y of each'
    x, y = polygon[::2], polygon[1::2]
    if max(x) <= 0 or max(y) <= 0 or min(x) >= width or min(y) >= height:
        return (
            f'holds a polygon outside the image: x {min(x):g} to {max(x):g}, y {min(y):g} to {max(y):g}, where the '
            f'image is {width}x{height} (width x height)'
        )
    return None


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


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask (height, width) bool as COCO's compressed run lengths."""
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(size=encoded['size'], counts=encoded['counts'].decode('ascii'))


def decode_counts(text: str) -> list[int] | None:
    """Run lengths of COCO's compressed RLE, zeros first; None if the text is invalid.

    Each number is written in groups of five bits, lowest first, with 32 added if more follow and 48 added to all;
    from the fourth on, it is the difference from the number two places before.
    """
    codes = np.frombuffer(text.encode('utf-8'), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(~codes & 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:  # 60 bits
        return None
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)  # the highest bit is the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers.tolist()
