"""Recognises, by statistics over a file, boxes that cannot be (x, y, width, height) in pixels of their images."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmcondetr.datasets.box_formats import (
    ENOUGH,
    EVIDENCE,
    FIT,
    MEANINGS,
    UNITS,
    UNREACHED,
    are_fractions,
    guess_format,
    images_beyond,
    lies_beyond,
    share_possible,
)
from mmcondetr.datasets.image_files import read_size
from mmcondetr.errors import UserError

_LEAST_SHARE, _LEAST_COUNT = 0.02, 3  # fewer boxes beyond their image may be an annotator's slips, and are clipped
_BOTH_SIDES = 0.25  # objects that continue outside do so on the left and above, too; wrong formats and sizes never do
_SCALED_SHARE = 0.25  # of the boxes of a larger picture extend beyond a smaller one, at least
_LEFT_OUT = 1 / 3  # slips are a few per cent; (x, y, width, height) taken for corners: most, as width < x on average
_LEAST_SIDE = 0.1  # pixels: no object is that thin
_BETWEEN = 0.9  # of boxes whose x and y are fractions begin at no whole pixel; the others are at the border
_LOOKED_AT = 20  # image files whose sizes are compared with the file's


@dataclass(frozen=True)
class Doubt:
    """What is wrong with the boxes of a file.

    Attributes:
        level: 'error' if it is certain, or 'warning'.
        first: index of the first annotation concerned, None for all.
        message: what was found and its likely cause.
        options: of ``mmcondetr convert-annotations``, which repair the file; '' where nothing can.
        effect: what that command does.
    """

    level: str
    first: int | None
    message: str
    options: str = ''
    effect: str = ''


def doubt_boxes(
    boxes: np.ndarray, sizes: np.ndarray, images: np.ndarray, names: Sequence[str], folder: str | None = None
) -> Doubt | None:
    """Find what the boxes of a file are if they are not in COCO's format, in pixels of their images.

    Boxes that extend beyond their image by up to two pixels or 2 % are possible, as in COCO itself. So are many that
    extend far beyond it on all sides, where annotators guess what is hidden; all of these are clipped.

    Args:
        boxes: (N, 4) as in the file.
        sizes: (N, 2), width and height of each box's image in pixels, 0 if unknown.
        images: (N,), index of each box's image.
        names: of the image files.
        folder: that the names are relative to; None if it is not known here.
    """
    usable = np.flatnonzero(np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1) & (boxes != 0).any(axis=1))
    boxes, sizes, images = boxes[usable], sizes[usable], images[usable]
    doubt = _doubt_origins(boxes, sizes)
    if doubt is not None:
        return doubt
    form, share, sure = guess_format(boxes, sizes)
    if form != 'xywh':
        return _another_format(form, share, sure)
    fractions = are_fractions(boxes, sizes)
    if _many(fractions) and (boxes[fractions] % 1 != 0).any():
        return _partly_fractions(fractions, boxes, sizes, usable)
    small = _doubt_small(boxes, sizes)
    if small is not None:
        small = replace(small, first=int(usable[small.first]))
        if small.level == 'error':
            return small
    doubt = doubt_centres(boxes, sizes, images, names)
    if doubt is not None:
        return replace(doubt, first=int(usable[doubt.first]))
    before, after = lies_beyond(boxes, sizes)
    if _many(after) and before.sum() <= _BOTH_SIDES * after.sum():
        first = int(np.flatnonzero(after)[0])
        found = (
            f'{after.sum()} of {len(boxes)} boxes extend beyond the right or lower border of their image, in '
            f"{len(np.unique(images[after]))} images, the first in '{names[images[first]]}'"
        )
        cause, options, effect = _cause(boxes, sizes, images, after, names, folder)
        return Doubt('error', int(usable[first]), f'{found}. {cause}', options, effect)
    if small is not None:
        return small
    reached = (boxes[:, :2] + boxes[:, 2:] > UNREACHED * sizes).any()
    if len(boxes) >= ENOUGH and not reached:
        message = (
            f'none of {len(boxes)} boxes reaches the right or the lower {1 - UNREACHED:.0%} of its image. Perhaps the '
            'images were enlarged without their boxes: look at some'
        )
        return Doubt('warning', None, message, '--scale 2', 'doubles the boxes (another factor may be right)')
    return None


def _doubt_origins(boxes: np.ndarray, sizes: np.ndarray) -> Doubt | None:
    """Find x and y that are fractions of the image, where width and height are pixels.

    Boxes that begin within the first pixel of their image are suspected if there are hardly any others, most begin at a
    fraction of a pixel, and the boxes fit their images with x and y as fractions, which boxes of whole images do not.
    """
    if len(boxes) < EVIDENCE:
        return None
    first = boxes[:, :2]
    near = ((first >= 0) & (first <= 1)).all(axis=1) & (sizes > 8).all(axis=1) & (boxes[:, 2:] > 1).any(axis=1)
    between = (first % 1 != 0).any(axis=1)
    if near.mean() < FIT or between.mean() < _BETWEEN or (first.max(axis=0) <= 1 - UNREACHED).any():
        return None
    if share_possible(np.hstack([first * sizes, boxes[:, 2:]]), sizes, 'xywh') < FIT:
        return None
    message = (
        f'x and y of {near.sum()} of {len(boxes)} boxes lie between 0 and 1: they are probably fractions of the image, '
        f'and only width and height are pixels, where COCO has {MEANINGS["xywh"]}. Write the file again from what it '
        'was made of'
    )
    return Doubt('error', None, message)


def _doubt_small(boxes: np.ndarray, sizes: np.ndarray) -> Doubt | None:
    """Find boxes smaller than a pixel, of which nothing can be learned; ``first`` is among these boxes.

    Objects a pixel wide and high have whole numbers; a few smaller ones are slips.
    """
    sides = boxes[:, 2:]
    below = (sides > 0).all(axis=1) & (sizes > 8).all(axis=1)
    below &= ((sides <= 1).all(axis=1) & (sides < 1).any(axis=1)) | (sides < _LEAST_SIDE).any(axis=1)
    if not _many(below):
        return None
    message = f'{below.sum()} of {len(boxes)} boxes are smaller than a pixel'
    scaled = np.hstack([boxes[below, :2], sides[below] * sizes[below]])
    centred = np.hstack([scaled[:, :2] - scaled[:, 2:] / 2, scaled[:, 2:]])
    fit = max(share_possible(given, sizes[below], 'xywh') for given in (scaled, centred))
    cause = ', although COCO counts in pixels'
    if fit >= FIT and np.median(sides[below]) > _LEAST_SIDE / 10:
        cause = ': width and height are probably fractions of the image, and only x and y are pixels'
    level = 'error' if below.sum() >= EVIDENCE and below.mean() > _LEFT_OUT else 'warning'
    message += f'{cause}. Write the file again from what it was made of' * (level == 'error')
    return Doubt(level, int(np.flatnonzero(below)[0]), message)


def doubt_centres(boxes: np.ndarray, sizes: np.ndarray, images: np.ndarray, names: Sequence[str]) -> Doubt | None:
    """Find boxes that were computed from centres, as of YOLO, where the labels hold corners instead.

    Those extend beyond their images on all sides, as boxes drawn around what is hidden do. But the latter, put
    back as they were in the labels, are not possible as corners: many a centre is larger than the width or the height.

    Args: as of :func:`doubt_boxes`, ``boxes`` being finite; ``names`` are those of the images or of their labels.
    """
    beyond = np.logical_or(*lies_beyond(boxes, sizes))
    if not _many(beyond):
        return None
    touched = np.isin(images, np.unique(images[beyond]))
    labels = np.hstack([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]])
    for form, meaning in (('xyxy', 'x1, y1, x2, y2'), ('xywh', 'left x, top y, width, height')):
        if share_possible(labels[touched], sizes[touched], form) >= FIT:
            first = int(np.flatnonzero(beyond)[0])
            message = (
                f'{beyond.sum()} of {len(boxes)} boxes extend beyond their image, in {len(np.unique(images[beyond]))} '
                f"images, the first in '{names[images[first]]}'. The labels are probably ({meaning}), where YOLO has "
                '(centre x, centre y, width, height) as fractions of the image: correct the labels that were converted'
            )
            return Doubt('error' if touched.sum() >= EVIDENCE else 'warning', first, message)
    return None


def explain_left_out(boxes: np.ndarray, sizes: np.ndarray, kept: np.ndarray) -> str:
    """The likely cause if a large share of the boxes has no part within its image; '' if only some have none.

    Args:
        boxes: (N, 4), as (x, y, width, height).
        sizes: (N, 2), width and height of their images in pixels.
        kept: (N,), which have a part inside.
    """
    bad = ~kept
    if bad.sum() < _LEAST_COUNT or bad.mean() <= _LEFT_OUT or not np.isfinite(boxes[bad]).all():
        return ''
    boxes, sizes = boxes[bad], sizes[bad]
    if (boxes[:, 2:] > 0).all():
        return 'They may have been drawn on other images, or on these in another size'
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    if (boxes[:, 2:] < 0).any():
        for form in ('xywh', 'cxcywh'):
            if share_possible(corners, sizes, form) >= FIT:
                return (
                    f'What was taken for corners (xmin, ymin, xmax, ymax) is probably {MEANINGS[form]}: width and '
                    'height here are what is left when x and y are subtracted. Correct the boxes that were converted'
                )
    return 'Their width or height is 0 or negative: perhaps corners were subtracted in the wrong order'


def _many(true: np.ndarray) -> bool:
    return int(true.sum()) >= max(_LEAST_COUNT, _LEAST_SHARE * len(true))


def _another_format(form: str, share: float, sure: bool) -> Doubt:
    fit = f'{share:.0%} of the boxes extend beyond their image'
    for ending, whole in UNITS.items():
        if form.endswith(ending):
            fit = f'all coordinates lie between 0 and {whole:g}'
    message = (
        f'{fit}: the boxes are {"probably" if sure else "perhaps"} {MEANINGS[form]}, where COCO has {MEANINGS["xywh"]}'
    )
    return Doubt('error' if sure else 'warning', None, message, f'--boxes {form}', 'converts them')


def _partly_fractions(fractions: np.ndarray, boxes: np.ndarray, sizes: np.ndarray, usable: np.ndarray) -> Doubt:
    form = guess_format(boxes[fractions], sizes[fractions])[0]
    message = (
        f'{fractions.sum()} of {len(boxes)} boxes lie between 0 and 1 and the others do not. The file is probably a '
        f'mixture of {MEANINGS[form]} and pixels'
    )
    return Doubt('error', int(usable[fractions][0]), message, f'--boxes {form} --mixed', 'converts the former')


def _cause(
    boxes: np.ndarray,
    sizes: np.ndarray,
    images: np.ndarray,
    after: np.ndarray,
    names: Sequence[str],
    folder: str | None,
) -> tuple[str, str, str]:
    """The likely cause of boxes beyond their images, the options that repair it, and what these do."""
    touched = images_beyond(boxes, sizes, images)
    fits = {form: share_possible(boxes[touched], sizes[touched], form) for form in ('xyxy', 'cxcywh', 'yxhw', 'yxyx')}
    form = max(fits, key=fits.__getitem__)  # the first of equal ones
    if fits[form] >= FIT:
        if form == 'yxhw':
            in_order = share_possible(boxes, sizes, 'yxhw') >= FIT
            return _other_order(in_order, _look_at_sizes(images[touched], sizes[touched], names, folder), folder)
        cause = f'The boxes of these images are probably {MEANINGS[form]}, so the file is a mixture of formats'
        return cause, f'--boxes {form} --mixed', 'converts these images only'
    for form in ('xyxy', 'cxcywh', 'yxyx'):
        if share_possible(boxes[after], sizes[after], form) >= FIT:
            cause = (
                f'They are probably {MEANINGS[form]}, but others in the same images are not: a mixture of formats that '
                'cannot be separated here. Write the file again from what it was made of'
            )
            return cause, '', ''
    across, down = ((boxes[:, :2] + boxes[:, 2:]) / sizes).max(axis=0)
    if after.mean() >= _SCALED_SHARE and abs(across - down) <= 0.1 * down:
        factor = (across + down) / 2
        cause = f'The images were probably reduced to 1/{factor:.3g} of their size without their boxes'
        return cause, f'--scale {1 / factor:.3g}', 'reduces all boxes likewise (--mixed: only those of these images)'
    cause = 'They may have been drawn on other images, or on these in another size; if they are right, they are clipped'
    return cause, '--clip', 'clips all boxes to their images'


def _look_at_sizes(images: np.ndarray, sizes: np.ndarray, names: Sequence[str], folder: str | None) -> str:
    """Whether image files are as large as stated: 'stated', 'swapped', or '' if both, neither or none can be read."""
    if folder is None:
        return ''
    found = set()
    numbers, first = np.unique(images, return_index=True)
    for number, index in list(zip(numbers, first))[:_LOOKED_AT]:
        try:
            size = read_size(os.path.join(folder, names[number]))
        except UserError:  # reported elsewhere
            continue
        found.add({tuple(sizes[index]): 'stated', tuple(sizes[index][::-1]): 'swapped'}.get(size, ''))
    return found.pop() if len(found) == 1 else ''


def _other_order(all_boxes: bool, files: str, folder: str | None) -> tuple[str, str, str]:
    """Boxes that fit if width and height of their images change places, which image files can explain in two ways.

    Args:
        all_boxes: whether they fit in images that have no box beyond them, too.
        files: see :func:`_look_at_sizes`.
    """
    as_boxes = '--boxes yxhw' + ' --mixed' * (not all_boxes)
    if files == 'stated':
        cause = f'The image files have the sizes stated, so these boxes are probably {MEANINGS["yxhw"]}'
        return cause, as_boxes, 'converts them'
    if files == 'swapped':
        cause = 'Width and height of these images are swapped in the file; with those of the image files, the boxes fit'
        return cause, f'--image-sizes {shlex.quote(folder)}', 'reads the sizes of the image files'
    cause = (
        'They fit if x and y change places: width and height of these images are probably swapped in the file, or the '
        f'boxes are {MEANINGS["yxhw"]}'
    )
    effect = f'repairs the former, FOLDER being that of the images, and with {as_boxes} instead the latter'
    return cause, '--image-sizes FOLDER', effect
