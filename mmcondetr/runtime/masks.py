"""Converts a graph's mask logits, at a quarter of the padded batch's size, to masks of an image's size."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Sizes(NamedTuple):
    """Height and width, pixels.

    Attributes:
        batch: of the padded batch.
        valid: of the resized image in it.
        original: of the image before resizing.
    """

    batch: tuple[int, int]
    valid: tuple[int, int]
    original: tuple[int, int]


def finish_masks(logits: np.ndarray, sizes: Sizes) -> np.ndarray:
    """Logits (K, h, w) of the padded batch -> masks of the original image (K, height, width) bool.

    Two bilinear interpolations, as in the PyTorch model: to the batch's size, then without the padding to the image's.
    """
    masks = np.zeros((len(logits), *sizes.original), dtype=bool)
    for mask, logit in zip(masks, logits):
        resized = cv2.resize(logit, sizes.batch[::-1], interpolation=cv2.INTER_LINEAR)
        resized = resized[: sizes.valid[0], : sizes.valid[1]]
        if sizes.valid != sizes.original:
            resized = cv2.resize(resized, sizes.original[::-1], interpolation=cv2.INTER_LINEAR)
        mask[:] = resized > 0
    return masks
