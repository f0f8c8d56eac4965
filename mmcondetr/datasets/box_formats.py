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
FIT = 0.99  # of the boxes must be possible in a format for it to be suspected
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


def _spare(sizes: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) by which a box may extend beyond its image, from rounding: two, or 2 %."""
    return np.maximum(2, 0.02 * sizes)


def lies_beyond(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes (N, 4), as (x, y, width, height), extend beyond the left or upper border, and the right or lower."""
    before = (boxes[:, :2] < -_spare(sizes)).any(axis=1)
    return before, (boxes[:, :2] + boxes[:, 2:] > sizes + _spare(sizes)).any(axis=1)


def _possible(boxes: np.ndarray, sizes: np.ndarray, form: str) -> np.ndarray:
    """Which boxes (N,) have an area and lie in their image, if they are of this format."""
    boxes = to_xywh(boxes, sizes, form)
    return ~np.logical_or(*lies_beyond(boxes, sizes)) & (boxes[:, 2:] > 0).all(axis=1)


def share_possible(boxes: np.ndarray, sizes: np.ndarray, form: str) -> float:
    """The share of boxes that are possible in a format; 0 without boxes."""
    return _share(_possible(boxes, sizes, form))


def are_fractions(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which boxes (N,) have coordinates between 0 and 1 only, in an image that is larger."""
    return ((boxes >= -0.05) & (boxes <= 1.05)).all(axis=1) & (sizes > 8).all(axis=1) & (boxes != 0).any(axis=1)


def images_beyond(boxes: np.ndarray, sizes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Which boxes (N,) are of an image that has a box beyond its right or lower border.

    Args:
        images: (N,), of any kind that can be compared.
    """
    return np.isin(images, np.unique(images[lies_beyond(boxes, sizes)[1]]))


def of_this_format(
    boxes: np.ndarray, sizes: np.ndarray, images: np.ndarray, form: str | None
) -> tuple[np.ndarray, int]:
    """Which boxes (N,) of a mixed file have another format than (x, y, width, height), or another scale (None).

    Returns:
        - the boxes that are fractions, for such a format; otherwise all boxes of images that have one beyond them;
        - how many of the other boxes are in images where either format is possible for all.
    """
    if form is not None and form.endswith('01'):
        return are_fractions(boxes, sizes), 0
    found = images_beyond(boxes, sizes, images)
    if form is None:
        return found, 0
    certain = np.isin(images, np.unique(images[~_possible(boxes, sizes, form)]))
    return found, int((~found & ~certain).sum())


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
    if _share(are_fractions(boxes, sizes)) >= FIT and (boxes % 1 != 0).any():
        forms = ('xywh01', 'xyxy01', 'cxcywh01')
        return next((form for form in forms if share_possible(boxes, sizes, form) >= FIT), 'xywh01'), 1.0, True
    outside = 1 - share_possible(boxes, sizes, 'xywh')
    if outside >= _OUTSIDE and outside * len(boxes) > 1.5:  # a single box proves nothing
        for form in ('xyxy', 'cxcywh'):
            if share_possible(boxes, sizes, form) >= FIT:
                return form, outside, len(boxes) >= _EVIDENCE
    return 'xywh', outside, len(boxes) >= _EVIDENCE
