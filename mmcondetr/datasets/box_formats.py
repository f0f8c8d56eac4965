"""Boxes in a format other than COCO's (x, y, width, height): recognised by statistics over a file, and converted."""

from __future__ import annotations

import numpy as np

FORMATS = (
    *('xyxy', 'cxcywh', 'yxhw', 'yxyx'),
    *('xywh01', 'xyxy01', 'cxcywh01'),
    *('xywh100', 'xyxy100', 'cxcywh100'),
)
UNITS = {'01': 1.0, '100': 100.0}  # ending of a format's name -> what stands for the whole width or height
MEANINGS = dict(
    xywh='(x, y, width, height) in pixels',
    xyxy='(x1, y1, x2, y2) in pixels',
    cxcywh='(centre x, centre y, width, height) in pixels',
    yxhw='(y, x, height, width) in pixels',
    yxyx='(y1, x1, y2, x2) in pixels',
    xywh01='(x, y, width, height) as fractions of the image',
    xyxy01='(x1, y1, x2, y2) as fractions of the image',
    cxcywh01='(centre x, centre y, width, height) as fractions of the image, as in YOLO',
    xywh100='(x, y, width, height) in percent of the image',
    xyxy100='(x1, y1, x2, y2) in percent of the image',
    cxcywh100='(centre x, centre y, width, height) in percent of the image',
)
FIT = 0.99  # of the boxes must be possible in a format for it to be suspected
_OUTSIDE = 0.1  # as xywh, this share of the boxes must extend beyond their image for another format to be suspected
EVIDENCE = 10  # boxes; with fewer, the finding may be due to chance
ENOUGH = 50  # boxes from which the part of the images that they never reach says something
UNREACHED = 0.55  # boxes that all end before this share of the width or the height are suspect
_FULL = 0.95  # percentages end here or later, for some object of many is cut off by the border


def to_xywh(boxes: np.ndarray, sizes: np.ndarray, form: str) -> np.ndarray:
    """Boxes (N, 4) of a format, images' sizes (N, 2) as width and height in pixels -> (x, y, w, h) in pixels."""
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    for ending, whole in UNITS.items():
        if form.endswith(ending):
            boxes = boxes * np.tile(sizes, 2) / whole
            form = form.removesuffix(ending)
    if form.startswith('yx'):
        boxes, form = boxes[:, [1, 0, 3, 2]], form.replace('yx', 'xy').replace('hw', 'wh')
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


def _percent_form(boxes: np.ndarray, sizes: np.ndarray) -> tuple[str, bool] | None:
    """The format of boxes (N, 4) that are percentages, and whether that is sure; None if nothing suggests it.

    In images of more than twice 100 pixels they could also be pixels of the upper left corner. They are suspected if,
    taken for percentages, they fill the images as boxes usually do, and it is sure if many of them end just where the
    image does, 95 to 102 % in width and height: that pixels of a corner do, too, would be two coincidences at once.
    """
    fits = ((boxes >= -2) & (boxes <= 102)).all(axis=1) & (sizes > 200).all(axis=1)
    if len(boxes) < EVIDENCE or _share(fits) < FIT:
        return None
    boxes, whole = boxes[fits], np.full((int(fits.sum()), 2), 100.0)
    for form in ('xywh', 'xyxy', 'cxcywh'):
        if share_possible(boxes, whole, form) >= FIT:
            ends = to_xywh(boxes, whole, form)
            reached = (ends[:, :2] + ends[:, 2:]).max(axis=0) / 100
            if (reached <= UNREACHED).any():
                return None
            return f'{form}100', len(boxes) >= ENOUGH and bool((reached >= _FULL).all())
    return None


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
    seldom all in order: only both together count as evidence. The same holds for centres, and for (y1, x1, y2, x2).
    (y, x, height, width) look like swapped sizes of the images, which this does not decide.

    Args:
        boxes: (N, 4) as in the file.
        sizes: (N, 2), width and height of each box's image in pixels.

    Returns:
        the format, 'xywh' unless there is evidence against it; the share of boxes that do not fit as xywh (of fractions
        and percentages, all); and whether there are enough boxes to be sure.
    """
    usable = np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1) & (boxes != 0).any(axis=1)
    boxes, sizes = boxes[usable], sizes[usable]
    if not len(boxes):
        return 'xywh', 0.0, False
    if _share(are_fractions(boxes, sizes)) >= FIT and (boxes % 1 != 0).any():
        forms = ('xywh01', 'xyxy01', 'cxcywh01')
        return next((form for form in forms if share_possible(boxes, sizes, form) >= FIT), 'xywh01'), 1.0, True
    percent = _percent_form(boxes, sizes)
    if percent is not None:
        return percent[0], 1.0, percent[1]
    outside = 1 - share_possible(boxes, sizes, 'xywh')
    if outside >= _OUTSIDE and outside * len(boxes) > 1.5:  # a single box proves nothing
        for form in ('xyxy', 'cxcywh', 'yxyx'):
            if share_possible(boxes, sizes, form) >= FIT:
                return form, outside, len(boxes) >= EVIDENCE
    return 'xywh', outside, len(boxes) >= EVIDENCE
