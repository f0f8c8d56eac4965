"""What ``predict`` is given, files, folders, patterns and videos, as a list of images and as frames."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from mmcondetr.errors import UserError

IMAGES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')


def find_sources(given: Sequence[str]) -> list[str]:
    """Images and videos of files, folders (with what is below them) and patterns such as 'photos/*.jpg', each once.

    Raises:
        UserError: something does not exist, is neither image nor video by its suffix, or holds none.
    """
    found: list[str] = []
    for source in given:
        path = os.path.expanduser(source)
        if os.path.isdir(path):
            inside = sorted(str(file) for file in Path(path).rglob('*') if _is_known(file) and file.is_file())
            if not inside:
                raise UserError(f"Folder '{source}' holds no image or video ({', '.join(IMAGES + VIDEOS)}).")
            found += inside
        elif os.path.isfile(path):
            if not _is_known(Path(path)):
                raise UserError(f"'{source}' is no image or video by its suffix ({', '.join(IMAGES + VIDEOS)}).")
            found.append(path)
        elif glob.has_magic(path):
            inside = sorted(file for file in glob.glob(path, recursive=True) if _is_known(Path(file)))
            if not inside:
                raise UserError(f"No image or video is named like '{source}'.")
            found += inside
        else:
            raise UserError(f"'{source}' does not exist: name an image, a video, a folder or a pattern.")
    return list(dict.fromkeys(found))


def is_video(path: str) -> bool:
    """By its suffix."""
    return path.lower().endswith(VIDEOS)


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGES + VIDEOS and not path.name.startswith('.')


class Video:
    """A video's frames as arrays (height, width, 3) uint8, BGR.

    Args:
        path: a file that OpenCV can read.

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._capture = cv2.VideoCapture(path)
        self.path = path
        self.size = tuple(
            int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.length = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))  # as the file says; some do not
        if not self._capture.isOpened() or 0 in self.size:
            raise UserError(f"Video '{path}' cannot be read by OpenCV: it is damaged, or its codec is unknown.")

    def frames(self, every: int = 1) -> Iterator[np.ndarray]:
        """Every so many frames, from the first on."""
        number = 0
        while self._capture.grab():
            if number % every == 0:
                read, frame = self._capture.retrieve()
                if not read:
                    break
                yield frame
            number += 1
        self._capture.release()
