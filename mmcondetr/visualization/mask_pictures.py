"""The masks of object queries, as layers of the explorer page."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import nn

from mmcondetr.datasets.read_image import array_pipeline
from mmcondetr.models.masks.masked_detector import masks_of


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


def mask_source(mask: np.ndarray, colour: tuple[int, int, int] = (255, 92, 134)) -> str:
    """A mask (height, width) bool as the data URI of a PNG that is transparent outside it."""
    picture = np.zeros((*mask.shape, 4), np.uint8)
    picture[mask] = (*colour[::-1], 255)
    return 'data:image/png;base64,' + base64.b64encode(cv2.imencode('.png', picture)[1].tobytes()).decode()
