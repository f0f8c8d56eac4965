"""Finds polygons that must not reach pycocotools: it walks along an outline in steps of a fifth of a pixel.

It computes in 32-bit integers and allocates memory for every step, so that one far corner made the process crash, hang
or take gigabytes.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

MOST_BEYOND = 10
"""An outline may continue beyond a border by so many times the image's width or height; it is clipped there."""
MOST_LENGTH = 4_000_000
"""Pixels along an outline: more than that of any object, and 0.2 GB while it is rasterised."""
_LARGEST = 1e300  # JSON's integers have any length; comparing does not convert them, and NaN is refused


def find_polygon_problem(polygon: Any, height: float, width: float) -> str | None:
    """The problem of a polygon, as the end of a sentence; None if there is none.

    Args:
        polygon: As decoded from JSON, x1, y1, x2, y2, ... in pixels.
        height: Of the image, in pixels, as is ``width``.
    """
    problem = find_wild_coordinates(polygon, height, width)
    if problem is not None:
        return problem
    if len(polygon) < 6 or len(polygon) % 2:
        return f'holds a polygon of {len(polygon)} numbers; it needs three points or more, x and y of each'
    x, y = polygon[::2], polygon[1::2]
    if max(x) <= 0 or max(y) <= 0 or min(x) >= width or min(y) >= height:
        return f'holds a polygon outside the image: {_describe(x, y, height, width)}'
    return None


def find_wild_coordinates(polygon: Any, height: float, width: float) -> str | None:
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
    return None


def _describe(x: list, y: list, height: float, width: float) -> str:
    return (
        f'x {min(x):g} to {max(x):g}, y {min(y, default=0):g} to {max(y, default=0):g}, where the image is '
        f'{width:g}x{height:g} (width x height)'
    )
