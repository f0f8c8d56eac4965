"""Small objects in large images: detect in overlapping tiles and merge, without a compiled operation."""

from __future__ import annotations

import numpy as np

from mmcondetr.errors import UserError

SAME = 0.5  # overlap from which two detections of one class are the same object
BORDER = 2.0  # pixels from an inner border of a tile within which a box counts as cut by it


def tile_windows(width: int, height: int, side: int, overlap: float = 0.2) -> list[tuple[int, int, int, int]]:
    """Square windows that cover an image, x1, y1, x2, y2 in pixels; those at the far sides are moved inside.

    Args:
        width: of the image in pixels.
        height: of the image in pixels.
        side: of a window in pixels; an image that is smaller is one window.
        overlap: of neighbours, the least fraction of their side.

    Raises:
        UserError: the side is below 32 pixels, or the overlap not in [0, 0.9].
    """
    if side < 32:
        raise UserError(f'A tile must be at least 32 pixels wide, got {side}.')
    if not 0 <= overlap <= 0.9:
        raise UserError(f'The overlap of tiles is a fraction from 0 to 0.9 of their side, got {overlap:g}.')
    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in _starts(height, side, overlap)
        for x in _starts(width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side * (1 - overlap)))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def is_cut(boxes: np.ndarray, window: tuple[int, int, int, int], width: int, height: int) -> np.ndarray:
    """(n,) bool: whether boxes, xyxy in pixels of the image, end at a border of their window that is inside it."""
    x1, y1, x2, y2 = window
    return (
        ((boxes[:, 0] <= x1 + BORDER) & (x1 > 0))
        | ((boxes[:, 1] <= y1 + BORDER) & (y1 > 0))
        | ((boxes[:, 2] >= x2 - BORDER) & (x2 < width))
        | ((boxes[:, 3] >= y2 - BORDER) & (y2 < height))
    )


def merge_tiles(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, origin: np.ndarray, cut: np.ndarray
) -> np.ndarray:
    """Greedy non-maximum suppression between tiles: indices of what stays, best first.

    Within a tile nothing is suppressed, for a DETR does not find one object twice. Of one object in two tiles the whole
    box wins over one that a tile's border cut, then the higher score; a cut box is a part of the other, so that
    what counts for it is the share of the smaller box that is covered, for whole boxes their IoU.

    Args:
        boxes: (n, 4), xyxy in pixels of the whole image.
        scores: (n,).
        labels: (n,).
        origin: (n,), number of the tile.
        cut: (n,) bool, see :func:`is_cut`.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    kept: list[int] = []
    for index in np.lexsort((-scores, cut)):
        others = np.array([k for k in kept if labels[k] == labels[index] and origin[k] != origin[index]], dtype=int)
        low = np.maximum(boxes[others, :2], boxes[index, :2])
        high = np.minimum(boxes[others, 2:], boxes[index, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        whole = ~(cut[others] | cut[index])
        base = np.where(whole, areas[others] + areas[index] - shared, np.minimum(areas[others], areas[index]))
        if not (shared >= SAME * np.maximum(base, 1e-9)).any():
            kept.append(int(index))
    return np.array(sorted(kept, key=lambda k: -scores[k]), dtype=int)
