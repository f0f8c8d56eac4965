"""Boxes in a format other than COCO's (x, y, width, height): recognised by statistics over a file, and converted."""

from __future__ import annotations

import numpy as np

FORMATS = ('xyxy', 'cxcywh', 'xywh01', 'xyxy01', 'cxcywh01')
MEANINGS = dict(
    xywh='(x, y, width, height) in pixels',
    xyxy='(x1, y1, x2, y2) in pixels',
    cxcywh='(centre x, centre y, width, height) in pixels',
    xywh01='(x, y, width, height) as fractions of the image',
    xyxy01='(x1, y1, x2, y2) as fractions of the image',
    cxcywh01='(centre x, centre y, width, height) as fractions of the image, as in YOLO',
)
_FIT = 0.99  # of the boxes must be possible in a format for it to be suspected
_OUTSIDE = 0.1  # as xywh, this share of the boxes must extend beyond their image for another format to be suspected
_EVIDENCE = 10  # boxes; with fewer, the finding may be due to chance


def to_xywh(boxes: np.ndarray, sizes: np.ndarray, form: str) -> np.ndarray:
    """Boxes (N, 4) of a format, images' sizes (N, 2) as width and height in pixels -> (x, y, w, h) in pixels."""
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    if form.endswith('01'):
        boxes = boxes * np.tile(sizes, 2)
        form = form[:-2]
    first, second = boxes[:, :2], boxes[:, 2:]
    if form == 'xyxy':
        return np.hstack([first, second - first])
    if form == 'cxcywh':
        return np.hstack([first - second / 2, second])
    return boxes


def _share(true: np.ndarray) -> float:
    return float(true.mean()) if len(true) else 0.0


def _possible(boxes: np.ndarray, sizes: np.ndarray, form: str) -> float:
    """The share of boxes that lie in their image, with two pixels or 2 % to spare, if they are of this format."""
    boxes = to_xywh(boxes, sizes, form)
    spare = np.maximum(2, 0.02 * sizes)
    inside = (boxes[:, :2] >= -spare) & (boxes[:, 2:] > 0) & (boxes[:, :2] + boxes[:, 2:] <= sizes + spare)
    return _share(inside.all(axis=1))


def guess_format(boxes: np.ndarray, sizes: np.ndarray) -> tuple[str, float, bool]:
    """Which format explains the boxes of a file best.

    Boxes as fractions are at most 1 wide, and few objects are a pixel wide. Corners read as (x, y, w, h) extend beyond
    the image wherever an object's centre lies in its right or lower half, while true (x, y, w, h) read as corners are
    seldom all in order: only both together count as evidence. The same holds for centres.

    Args:
        boxes: (N, 4) as in the file.
        sizes: (N, 2), width and height of each box's image in pixels.

    Returns:
        the format, 'xywh' unless there is evidence against it; the share of boxes that do not fit as xywh; and whether
        there are enough boxes to be sure.
    """
    usable = np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1) & (boxes != 0).any(axis=1)
    boxes, sizes = boxes[usable], sizes[usable]
    if not len(boxes):
        return 'xywh', 0.0, False
    fractions = ((boxes >= -0.05) & (boxes <= 1.05)).all(axis=1) & (sizes > 8).all(axis=1)
    if _share(fractions) >= _FIT and (boxes % 1 != 0).any():
        forms = ('xywh01', 'xyxy01', 'cxcywh01')
        return next((form for form in forms if _possible(boxes, sizes, form) >= _FIT), 'xywh01'), 1.0, True
    outside = 1 - _possible(boxes, sizes, 'xywh')
    if outside >= _OUTSIDE and outside * len(boxes) > 1.5:  # a single box proves nothing
        for form in ('xyxy', 'cxcywh'):
            if _possible(boxes, sizes, form) >= _FIT:
                return form, outside, len(boxes) >= _EVIDENCE
    return 'xywh', outside, len(boxes) >= _EVIDENCE
