"""Finds polygons that must not reach pycocotools: it walks along an outline in steps of a fifth of a pixel.

It computes in 32-bit integers and allocates memory for every step, so that one far corner made the process crash, hang
or take gigabytes.
"""

from __future__ import annotations

from collections import Counter
from math import sqrt
from numbers import Real
from typing import Any

from mmcondetr.datasets.annotation_file import AnnotationFile
from mmcondetr.runtime.encoded import MOST_PIXELS

MOST_BEYOND = 10
"""An outline may continue beyond a border by so many times the image's width or height; it is clipped there."""
MOST_LENGTH = 4_000_000
"""Pixels along an outline: more than that of any object, and 0.2 GB while it is rasterised."""
_ALWAYS = 20_000_000
_SIDE_BY_SIDE = 16  # times sqrt(N H W): four times the outlines of N squares that fill an image of H x W
_PER_BYTE = 8
_MERGED = 64
_LARGEST = 1e300  # JSON's integers have any length; comparing does not convert them, and NaN is refused


class LengthLeft:
    """How long the outlines of a file may still be, in pixels, so that rasterising them all ends.

    It takes about 0.1 s per million pixels. The limit is 20 million and, beyond that, what the file's images and the
    digits of its outlines make plausible; of that, the objects of 100 images of COCO take a thirtieth. Polygons of one
    annotation are merged one by one, in time that grows with the square of their number: it counts as more length.

    Args:
        file: Whose images have sizes, in pixels.
    """

    def __init__(self, file: AnnotationFile) -> None:
        counts = Counter(annotation.image_id for annotation in file.annotations)
        pixels = (
            counts[image.id] * image.height * image.width
            for image in file.images
            if 0 < image.height * image.width <= MOST_PIXELS
        )
        digits = sum(memoryview(annotation.segmentation).nbytes for annotation in file.annotations)
        self.limit = self._left = _ALWAYS + _SIDE_BY_SIDE * sum(map(sqrt, pixels)) + _PER_BYTE * digits

    def take(self, length: float, count: int) -> bool:
        """Whether a polygon of ``length``, one of ``count`` of its annotation, can be rasterised, too."""
        self._left -= length * (1 + count / _MERGED)
        return self._left >= 0


def find_polygon_problem(
    polygon: Any, height: float, width: float, left: LengthLeft | None = None, count: int = 1
) -> str | None:
    """The problem of a polygon, as the end of a sentence; None if there is none.

    Args:
        polygon: As decoded from JSON, x1, y1, x2, y2, ... in pixels.
        height: Of the image, in pixels, as is ``width``.
        left: Of the file; the polygon takes its share. None where that was checked before.
        count: The polygons of its annotation.
    """
    problem = find_wild_coordinates(polygon, height, width, left, count)
    if problem is not None:
        return problem
    if len(polygon) < 6 or len(polygon) % 2:
        return f'holds a polygon of {len(polygon)} numbers; it needs three points or more, x and y of each'
    x, y = polygon[::2], polygon[1::2]
    if max(x) <= 0 or max(y) <= 0 or min(x) >= width or min(y) >= height:
        return f'holds a polygon outside the image: {_describe(x, y, height, width)}'
    return None


def find_wild_coordinates(
    polygon: Any, height: float, width: float, left: LengthLeft | None = None, count: int = 1
) -> str | None:
    """As :func:`find_polygon_problem`, but only what no drawing on the image can be."""
    if not isinstance(polygon, list) or not all(isinstance(v, Real) and -_LARGEST <= v <= _LARGEST for v in polygon):
        return 'holds a polygon that is not a list of finite numbers x1, y1, x2, y2, ...'
    x, y = polygon[::2], polygon[1::2]
    for values, side in ((x, width), (y, height)):
        if values and (min(values) < -MOST_BEYOND * side or max(values) > (1 + MOST_BEYOND) * side):
            return f'holds a polygon far outside the image: {_describe(x, y, height, width)}'
    length = sum(max(abs(x[i] - x[i - 1]), abs(y[i] - y[i - 1])) for i in range(len(y)))
    if length > MOST_LENGTH:
        return f'holds a polygon whose outline is {length:.3g} pixels long; more than {MOST_LENGTH} are not rasterised'
    if left is not None and not left.take(length, count):
        return (
            f'holds a polygon with which the outlines of this file are too long to rasterise: {left.limit:.3g} pixels '
            'in all are far more than its objects can have'
        )
    return None


def _describe(x: list, y: list, height: float, width: float) -> str:
    return (
        f'x {min(x):g} to {max(x):g}, y {min(y, default=0):g} to {max(y, default=0):g}, where the image is '
        f'{width:g}x{height:g} (width x height)'
    )
