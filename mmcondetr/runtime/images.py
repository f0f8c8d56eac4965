"""Converts an image file or array to the graph's input, pixel for pixel like mmdet's test pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmcondetr.errors import UserError
from mmcondetr.runtime.encoded import problem
from mmcondetr.runtime.metadata import Resize

Image = str | os.PathLike | np.ndarray
_INTERPOLATIONS = dict(
    nearest=cv2.INTER_NEAREST,
    bilinear=cv2.INTER_LINEAR,
    bicubic=cv2.INTER_CUBIC,
    area=cv2.INTER_AREA,
    lanczos=cv2.INTER_LANCZOS4,
)
ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


def list_images(path: str | os.PathLike) -> list[Path]:
    """The image files in a folder (not in its subfolders), sorted by name, or the single file ``path``.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"'{path}' is neither an image nor a folder of images.")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    if not found:
        raise UserError(f"Folder '{path}' contains no image ({', '.join(ENDINGS)}).")
    return found


def read_image(image: Image) -> np.ndarray:
    """An image as OpenCV reads it, (height, width, 3) uint8, BGR; an array is returned unchanged.

    Raises:
        UserError: the file is missing, truncated or not an image, or the array has another shape or type.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(
                f'An image array must be (height, width, 3) uint8, BGR as OpenCV reads it; got shape '
                f'{image.shape}, {image.dtype}.'
            )
        return image
    if not isinstance(image, (str, os.PathLike)):
        raise UserError(f'An image is a path or an array, not a {type(image).__name__}.')
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        raise UserError(f"Image file '{image}' cannot be read: {error.strerror or error}.") from error
    wrong = problem(data)
    if wrong is not None:
        raise UserError(f"Image file '{image}' {wrong}")
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise UserError(
            f"Image file '{image}' is not an image that can be decoded ({len(data)} bytes, begins with {data[:8]!r})."
        )
    return decoded


def resize_image(image: np.ndarray, resize: Resize | None) -> np.ndarray:
    """Resize (height, width, 3) like mmdet's ``Resize``."""
    if resize is None:
        return image
    height, width = image.shape[:2]
    size = resize.scale  # (width, height)
    if resize.keep_ratio:
        factor = min(max(resize.scale) / max(height, width), min(resize.scale) / min(height, width))
        size = int(width * factor + 0.5), int(height * factor + 0.5)
        if 0 in size:
            raise UserError(f'An image of {width}x{height} pixels cannot be fitted into {resize.scale}: too thin.')
    return cv2.resize(image, size, interpolation=_INTERPOLATIONS[resize.interpolation])


def stack_images(images: Sequence[np.ndarray], divisor: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Combine images (height, width, 3) BGR into one batch, each in the upper left corner.

    Args:
        images: B images.
        divisor: height and width of the batch are padded to multiples of it.

    Returns:
        - (B, 3, height, width) uint8, RGB, zero in the padding;
        - (B, 2) int64, height and width of each without its padding.
    """
    sizes = np.array([image.shape[:2] for image in images], dtype=np.int64)
    height, width = (-(-int(side) // divisor) * divisor for side in sizes.max(axis=0))
    batch = np.zeros((len(images), 3, height, width), dtype=np.uint8)
    for place, image, (rows, columns) in zip(batch, images, sizes):
        place[:, :rows, :columns] = image[..., ::-1].transpose(2, 0, 1)
    return batch, sizes
