"""Image files of a data set: found by their names, and their sizes from their headers."""

from __future__ import annotations

import os
from collections.abc import Sequence
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


def describe_sizes(
    wrong: Sequence[tuple[str, tuple[int, int], tuple[int, int]]], count: int, ann_file: str, command: str
) -> str:
    """One line about images of another size than their annotation file says.

    Args:
        wrong: name, size found, and size stated, (width, height) in pixels, of each.
        count: of all images of the file.
        command: that repairs it.
    """
    shown = ', '.join(f"'{name}' ({_times(found)} instead of {_times(stated)})" for name, found, stated in wrong[:3])
    swapped = sum(found == stated[::-1] for _, found, stated in wrong)
    cause = 'Boxes may have been drawn on these images in another size: if so, --scale repairs them'
    if swapped == len(wrong):
        cause = 'Width and height are swapped'
    elif swapped:
        cause = f'Width and height are swapped in {swapped} of them'
    return (
        f"{len(wrong)} of {count} images have another size (width x height) than in '{ann_file}', so boxes would not "
        f'fit, such as {shown}. {cause}; {command}'
    )


def _times(size: tuple[int, int]) -> str:
    return 'x'.join(f'{side:g}' for side in size)


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
