"""Converts users' images (a path, an array or a PIL image) to the array that the detectors take."""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config

from mmcondetr.datasets.load_image import LoadImage
from mmcondetr.errors import UserError
from mmcondetr.runtime.encoded import too_thin

CHANNEL_ORDERS = ('bgr', 'rgb')


def read_image(image: Any, channel_order: str = 'bgr') -> np.ndarray:
    """The image in the detectors' format: (height, width, 3) uint8, BGR.

    A file or PIL image is rotated according to its EXIF orientation; grayscale becomes three equal channels, alpha is
    dropped, 16 bits become 8.

    Args:
        image: a path, a PIL image, or an array: (height, width) grey, (height, width, 3) or (height, width, 4) with
            alpha last, uint8 or uint16.
        channel_order: of an array: 'bgr', as in OpenCV and mmdet, or 'rgb'. Unused for files and PIL images.

    Raises:
        UserError: the file is missing, truncated or not an image, or the array has another shape or type.
    """
    if channel_order not in CHANNEL_ORDERS:
        raise UserError(f"channel_order must be 'bgr' or 'rgb', got {channel_order!r}.")
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        if not os.path.isfile(path):
            raise UserError(f"Image '{path}' does not exist" + (', it is a folder.' if os.path.isdir(path) else '.'))
        return LoadImage().transform(dict(img_path=path))['img']
    if not isinstance(image, np.ndarray):
        image, channel_order = _from_pil(image), 'rgb'
    pixels = image[..., None] if image.ndim == 2 else image
    if (
        pixels.ndim != 3
        or pixels.shape[2] not in (1, 3, 4)
        or pixels.dtype not in (np.uint8, np.uint16)
        or 0 in pixels.shape
    ):
        raise UserError(
            f'An image array must be (height, width), (height, width, 3) or (height, width, 4) of uint8 '
            f'or uint16, got shape {image.shape} of {image.dtype}.'
        )
    wrong = too_thin((pixels.shape[1], pixels.shape[0]))
    if wrong is not None:
        raise UserError(f'An image array {wrong}')
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.shape[2] == 1:
        return np.ascontiguousarray(pixels.repeat(3, axis=2))
    return np.ascontiguousarray(pixels[..., :3] if channel_order == 'bgr' else pixels[..., 2::-1])


def _from_pil(image: Any) -> np.ndarray:
    """(height, width) grey or (height, width, 3) RGB."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise UserError(f'An image must be a path, a numpy array or a PIL image, got {type(image).__name__}.')
    image = ImageOps.exif_transpose(image)
    return np.asarray(image if image.mode in ('L', 'I;16') else image.convert('RGB'))


def array_pipeline(config: Config) -> Compose:
    """The config's test pipeline, for an array instead of a file and without ground truth.

    It takes ``dict(img=..., img_id=...)`` with an image from :func:`read_image`.
    """
    steps = [
        step
        for step in deepcopy(get_test_pipeline_cfg(config))
        if not any(name in str(step['type']) for name in ('LoadImage', 'LoadAnnotations', 'LoadPanoptic'))
    ]
    for step in steps:  # an array has no path, which the packing step would require
        if 'meta_keys' in step:
            step['meta_keys'] = tuple(key for key in step['meta_keys'] if key != 'img_path')
    return Compose([dict(type='mmdet.LoadImageFromNDArray'), *steps])
