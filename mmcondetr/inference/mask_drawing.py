"""Drawing masks and panoptic maps on an image, and arranging pictures in a grid."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Colour = tuple[int, int, int]
_BLEND = 0.55  # of a mask's colour in its pixels


def paint_masks(pixels: np.ndarray, masks: np.ndarray, colours: Sequence[Colour], scale: int = 1) -> np.ndarray:
    """Paint masks and their outlines over an image, the last one on top.

    Args:
        pixels: (height, width, 3) uint8, BGR.
        masks: (n, height, width) bool.
        colours: RGB of each.
        scale: enlargement of the image, so that outlines can be thinner than its pixels.

    Returns:
        (height, width, 3) times the scale, uint8, BGR.
    """
    picture = _enlarge(pixels, scale)
    for mask, colour in zip(masks, colours):
        mask, bgr = _enlarge(mask.astype(np.uint8), scale), colour[::-1]
        picture[mask > 0] = (1 - _BLEND) * picture[mask > 0] + _BLEND * np.array(bgr)
        outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, bgr, max(1, scale // 2))
    return picture


def paint_panoptic(pixels: np.ndarray, sem_seg: np.ndarray, colours: Sequence[Colour], scale: int = 1) -> np.ndarray:
    """Paint a panoptic map over an image: one colour per class, white lines between segments, nothing on void.

    Args:
        pixels: (height, width, 3) uint8, BGR.
        sem_seg: (height, width), class + 1000 * instance; the number of classes on void.
        colours: RGB by class.
        scale: as in :func:`paint_masks`.

    Returns:
        As :func:`paint_masks`.
    """
    picture, ids = _enlarge(pixels, scale), _enlarge(sem_seg.astype(np.int32), scale)
    classes = ids % 1000
    palette = np.array([colour[::-1] for colour in colours], np.float64)
    known = classes < len(palette)
    picture[known] = (1 - _BLEND) * picture[known] + _BLEND * palette[classes[known]]
    between = np.zeros(ids.shape, bool)
    between[:-1] |= ids[:-1] != ids[1:]
    between[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    picture[between] = 255
    return picture


def place_names(sem_seg: np.ndarray, num_classes: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Where to write the names of a panoptic map's segments: the pixel of each that is farthest from its border.

    Args:
        sem_seg: (height, width), as in :func:`paint_panoptic`.

    Returns:
        - (x, y) in pixels;
        - the labels.
    """
    places, labels = [], []
    for value in np.unique(sem_seg).tolist():
        if value % 1000 < num_classes:
            mask = np.pad((sem_seg == value).astype(np.uint8), 1)  # the image's border is a border, too
            row, column = np.unravel_index(cv2.distanceTransform(mask, cv2.DIST_L2, 3).argmax(), mask.shape)
            places.append((int(column) - 1, int(row) - 1))
            labels.append(value % 1000)
    return places, labels


def grid_of(pictures: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Arrange pictures (height, width, 3) uint8 of one size in rows on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    result = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        result[top : top + height, left : left + width] = picture
    return result


def _enlarge(values: np.ndarray, scale: int) -> np.ndarray:
    """(height, width, ...) -> a copy with each pixel repeated ``scale`` times in both directions."""
    return values.repeat(scale, axis=0).repeat(scale, axis=1)
