"""Image files of a data set: found by their names, and their sizes from their headers."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from mmcondetr.errors import UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """(width, height) in pixels of the image as displayed, that is, rotated according to its EXIF orientation.

    Raises:
        UserError: the file cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _TURNED
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"Image file '{os.fspath(path)}' cannot be read: {error}.") from error
    return (height, width) if turned else (width, height)


def find_image(folder: Path, stem: str) -> Path | None:
    """The image of this name in a folder, whatever its suffix."""
    for suffix in IMAGE_SUFFIXES:
        for path in (folder / f'{stem}{suffix}', folder / f'{stem}{suffix.upper()}'):
            if path.is_file():
                return path
    return None


def list_images(folder: Path) -> list[Path]:
    """All images in a folder and its subfolders, sorted by name."""
    return sorted(path for path in folder.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
