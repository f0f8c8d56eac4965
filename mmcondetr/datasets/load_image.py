"""Reads an image file with one clear error, where mmcv passes its decoder's errors on."""

from __future__ import annotations

import io
import logging

import cv2
import mmcv
import mmengine.fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from PIL import ExifTags, Image

from mmcondetr.errors import UserError
from mmcondetr.registry import TRANSFORMS
from mmcondetr.runtime.encoded import problem


def _orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1 (upright) if there is none that can be read."""
    if data[:2] != b'\xff\xd8' or b'Exif' not in data[:4096]:
        return 1
    try:
        return int(Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, TypeError, ValueError):
        return 1


class WrongSizeError(UserError):
    """An image file has another size than its annotation says.

    Attributes:
        loaded, annotated: (width, height) in pixels; (0, 0) if a data loader's worker has passed it on, as text.
    """

    def __init__(self, message: str, loaded: tuple[int, int] = (0, 0), annotated: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.loaded, self.annotated = loaded, annotated


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's LoadImageFromFile, with errors that name the file and the annotations that list it.

    :mod:`mmcondetr.runtime.encoded` defines which files are refused (bytes after an image's end are accepted).

    It also compares the image's size with the annotation's, because training would silently use boxes of another size,
    and warns once per process if an annotated image is rotated by its EXIF orientation: its boxes are not rotated.
    """

    _warned = False  # shared by all pipelines of the process

    def transform(self, results: dict) -> dict:
        """Adds ``img`` (height, width, 3), ``img_shape``, ``ori_shape`` and ``scale_factor``.

        Raises:
            UserError: The file is missing, truncated, too large, too thin or not an image.
            WrongSizeError: Its size differs from the annotations'.
        """
        path, annotated = results['img_path'], 'height' in results
        listed_in = f" (listed in '{results['ann_file']}')" if 'ann_file' in results else ''
        try:
            data = self.read(path)
        except (OSError, ValueError) as error:  # a name with a null byte
            reason = f'{getattr(error, "strerror", None) or error}.'
            advice = ' Check data_root and data_prefix in the config.' if annotated else ''
            raise UserError(f"Image file '{path}'{listed_in} cannot be read: {reason}{advice}") from error
        wrong = problem(data)
        if wrong is not None:
            advice = ' Repair it, or remove it from the annotations.' if annotated else ''
            raise UserError(f"Image file '{path}'{listed_in} {wrong}{advice}")
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
        results['scale_factor'] = (1.0, 1.0)  # mmdet's heads need it even if nothing resizes
        self._check_size(results, path, listed_in)
        if 'height' in results and not LoadImage._warned:
            self._check_orientation(data, path, listed_in)
        return results

    def read(self, path: str) -> bytes:
        """The encoded image, from a file or one of mmengine's storages."""
        return mmengine.fileio.get(path, backend_args=self.backend_args)

    def _check_orientation(self, data: bytes, path: str, listed_in: str) -> None:
        orientation = 1 if 'ignore_orientation' in self.color_type else _orientation(data)
        if orientation == 1:
            return
        LoadImage._warned = True
        print_log(
            f"Image file '{path}'{listed_in} has EXIF orientation {orientation} and is rotated accordingly when it is "
            'read; boxes are not. They must have been drawn on the rotated image: check some. If they were drawn on '
            "the pixels as stored, set color_type='color_ignore_orientation' in LoadImage. There may be more such "
            'files; this warning is shown once.',
            'current',
            logging.WARNING,
        )

    @staticmethod
    def _check_size(results: dict, path: str, listed_in: str) -> None:
        if 'height' not in results or 'width' not in results:
            return
        annotated, loaded = (results['width'], results['height']), results['img_shape'][::-1]
        if annotated == loaded:
            return
        advice = 'Correct width and height there, or use the image they were drawn on.'
        if annotated == loaded[::-1]:
            advice = 'They are probably swapped there: mmcondetr convert-annotations with --image-sizes corrects them.'
        message = (
            f"Image file '{path}' is {loaded[0]}x{loaded[1]} pixels, but its annotation{listed_in} says "
            f'{annotated[0]}x{annotated[1]} (width x height): boxes would not fit. {advice}'
        )
        raise WrongSizeError(message, loaded, annotated)
