"""COCO's panoptic PNG: each pixel's colour is the id of its segment, R + 256 G + 65536 B; 0 is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import mmengine.fileio
import numpy as np

from mmcondetr.errors import UserError
from mmcondetr.runtime.encoded import problem

_ID_STEP, _IDS = 123457, 2**24  # an odd step: ids differ, and all three bytes of the colours are used
_WEIGHTS = np.array([65536, 256, 1], np.int64)  # weights of OpenCV's blue, green and red


def write_panoptic_png(path: str | os.PathLike, segment_ids: np.ndarray) -> None:
    """Write segment ids (height, width), 0 to 2^24 - 1; creates the folder.

    Raises:
        UserError: The file could not be written.
    """
    pixels = np.stack([segment_ids >> 16 & 255, segment_ids >> 8 & 255, segment_ids & 255], axis=-1).astype(np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise UserError(f'Could not write the panoptic image {path}.')


def read_panoptic_png(path: str, field: str, backend_args: dict | None = None) -> np.ndarray:
    """Read segment ids (height, width) int64.

    Args:
        field: The config's field that names the folder, for messages.

    Raises:
        UserError: The file is missing, or not an 8-bit colour image.
    """
    try:
        data = mmengine.fileio.get(path, backend_args=backend_args)
    except OSError as error:
        raise UserError(f"Panoptic image '{path}' ({field}) cannot be read: {error.strerror or error}.") from error
    wrong = problem(data)  # also if it says that it is huge, which must not be decoded
    pixels = None if wrong else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        found = (
            (wrong or 'cannot be decoded').rstrip('.')
            if pixels is None
            else f'has shape {pixels.shape} and type {pixels.dtype}'
        )
        raise UserError(
            f"Panoptic image '{path}' ({field}) must be a PNG with three channels of 8 bits, whose colours are segment "
            f'ids (R + 256 G + 65536 B); it {found}.'
        )
    return pixels.astype(np.int64) @ _WEIGHTS


def describe_segment(index: int, category_id: int, mask: np.ndarray) -> dict[str, Any]:
    """The entry of an image's segment in ``segments_info``, with an id that no other index has.

    Args:
        index: from 0, of the segment in its image.
        mask: (height, width) bool.

    Returns:
        id, category_id, area in pixels, bbox (x, y, width, height in pixels) and iscrowd.
    """
    return dict(
        id=(index + 1) * _ID_STEP % _IDS,
        category_id=category_id,
        area=int(mask.sum()),
        bbox=list(cv2.boundingRect(mask.astype(np.uint8))),
        iscrowd=0,
    )
