"""Masks and panoptic maps as pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import nn

from mmcondetr.datasets.read_image import array_pipeline
from mmcondetr.models.masks.masked_detector import masks_of

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


def grid_of(pictures: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Arrange pictures (height, width, 3) uint8 of one size in rows on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    result = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        result[top : top + height, left : left + width] = picture
    return result


def find_masks(model: nn.Module, pixels: np.ndarray, queries: Sequence[int]) -> np.ndarray:
    """Masks of object queries in an image (height, width, 3) BGR: (K, height, width) bool; (0, ...) without mask head.

    Args:
        model: a detector built by ``mmdet.apis.init_detector``.
    """
    if getattr(model, 'mask_head', None) is None:
        return np.zeros((0, *pixels.shape[:2]), bool)
    item = array_pipeline(model.cfg)(dict(img=pixels, img_id=0))
    data = model.data_preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False)
    with torch.no_grad():
        return masks_of(model, data['inputs'], data['data_samples'], queries).cpu().numpy()


def mask_source(mask: np.ndarray, colour: Colour = (255, 92, 134)) -> str:
    """A mask (height, width) bool as the data URI of a PNG that is transparent outside it."""
    picture = np.zeros((*mask.shape, 4), np.uint8)
    picture[mask] = (*colour[::-1], 255)
    return 'data:image/png;base64,' + base64.b64encode(cv2.imencode('.png', picture)[1].tobytes()).decode()


def _enlarge(values: np.ndarray, scale: int) -> np.ndarray:
    """(height, width, ...) -> a copy with each pixel repeated ``scale`` times in both directions."""
    return values.repeat(scale, axis=0).repeat(scale, axis=1)
