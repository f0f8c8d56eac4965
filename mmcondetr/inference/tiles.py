"""Tiled detection of small objects in large images: overlapping windows, and merging without compiled ops."""

from __future__ import annotations

import numpy as np

from mmcondetr.errors import UserError

SAME = 0.5  # minimum overlap of two detections of the same object
BORDER = 2.0  # pixels; a box this close to an inner border of a tile counts as cut by it


def tile_windows(width: int, height: int, side: int, overlap: float = 0.2) -> list[tuple[int, int, int, int]]:
    """Square windows that cover an image, x1, y1, x2, y2 in pixels; the last ones are moved inside.

    Args:
        width: of the image in pixels.
        height: of the image in pixels.
        side: of a window in pixels; a smaller image is one window.
        overlap: minimum overlap of neighbours, as a fraction of their side.

    Raises:
        UserError: the side is below 32 pixels, or the overlap is not in [0, 0.9].
    """
    if side < 32:
        raise UserError(f'A tile must be at least 32 pixels wide, got {side}.')
    if not 0 <= overlap <= 0.9:
        raise UserError(f'The overlap of tiles must be from 0 to 0.9 of their side, got {overlap:g}.')
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
    """(n,) bool: whether boxes, xyxy in pixels of the image, touch a border of their window inside the image."""
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
    """Greedy non-maximum suppression between tiles: indices of the boxes that are kept, best first.

    Nothing is suppressed within a tile, because DETR does not need it. For an object in two tiles, an uncut box takes
    precedence over one cut by a tile's border, then the higher score. The overlap of uncut boxes is their IoU; a cut
    box may be part of the other, so its overlap is the covered fraction of the smaller box.

    Args:
        boxes: (n, 4), xyxy in pixels of the whole image.
        scores: (n,).
        labels: (n,).
        origin: (n,), index of the tile.
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
