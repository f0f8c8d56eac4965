"""Reading an image file with one clear error where mmcv raises whatever its decoder raised."""

from __future__ import annotations

import cv2
import mmcv
import mmengine.fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile

from mmcondetr.errors import UserError
from mmcondetr.registry import TRANSFORMS


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: OpenCV decodes such a file and leaves the rest of the image grey."""
    if data[:2] == b'\xff\xd8':
        return b'\xff\xd9' not in data[-4096:]  # some writers pad after the end-of-image marker
    if data[:8] == b'\x89PNG\r\n\x1a\n':
        return b'IEND' not in data[-4096:]
    return False


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's LoadImageFromFile that names a missing, unreadable or truncated file and the annotations that list it.

    It also compares the image's size with the annotation's, since boxes of another size would train on silently.
    """

    def transform(self, results: dict) -> dict:
        """Adds ``img`` (height, width, 3), ``img_shape``, ``ori_shape`` and ``scale_factor``.

        Raises:
            UserError: The file is missing, truncated or no image, or its size is not what the annotations say.
        """
        path = results['img_path']
        listed_in = f" (listed in '{results['ann_file']}')" if 'ann_file' in results else ''
        try:
            data = mmengine.fileio.get(path, backend_args=self.backend_args)
        except OSError as error:
            raise UserError(
                f"Image file '{path}'{listed_in} cannot be read: {error.strerror or error}. Check "
                f'data_root and data_prefix in the config.'
            ) from error
        if _is_truncated(data):
            raise UserError(
                f"Image file '{path}'{listed_in} is truncated: it ends after {len(data)} bytes, before "
                f'the image does. Copy it again, or remove it from the annotations.'
            )
        try:
            image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
        except (cv2.error, OSError, ValueError):
            image = None
        if image is None:
            raise UserError(
                f"Image file '{path}'{listed_in} is not an image that can be decoded ({len(data)} bytes, "
                f'begins with {data[:8]!r}).'
            )
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        results['scale_factor'] = (1.0, 1.0)  # mmdet's heads ask for it also where nothing resizes
        self._check_size(results, path, listed_in)
        return results

    @staticmethod
    def _check_size(results: dict, path: str, listed_in: str) -> None:
        if 'height' not in results or 'width' not in results:
            return
        annotated, loaded = (results['height'], results['width']), results['img_shape']
        if annotated != loaded:
            raise UserError(
                f"Image file '{path}' is {loaded[1]}x{loaded[0]} pixels, but its annotation"
                f'{listed_in} says {annotated[1]}x{annotated[0]} (width x height): boxes would not fit. '
                f'Correct width and height there, or use the image they were drawn on.'
            )
