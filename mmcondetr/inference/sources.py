"""Inputs of ``predict``: files, folders, patterns and videos."""

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
    """All images and videos in files, folders (recursively) and patterns such as 'photos/*.jpg', each once.

    Raises:
        UserError: a source does not exist, has an unknown suffix, or contains no image or video.
    """
    found: list[str] = []
    for source in given:
        path = os.path.expanduser(source)
        if os.path.isdir(path):
            inside = sorted(str(file) for file in Path(path).rglob('*') if _is_known(file) and file.is_file())
            if not inside:
                raise UserError(f"Folder '{source}' contains no image or video ({', '.join(IMAGES + VIDEOS)}).")
            found += inside
        elif os.path.isfile(path):
            if not _is_known(Path(path)):
                raise UserError(
                    f"'{source}' does not have the suffix of an image or video ({', '.join(IMAGES + VIDEOS)})."
                )
            found.append(path)
        elif glob.has_magic(path):
            inside = sorted(file for file in glob.glob(path, recursive=True) if _is_known(Path(file)))
            if not inside:
                raise UserError(f"No image or video matches '{source}'.")
            found += inside
        else:
            raise UserError(f"'{source}' does not exist: give an image, a video, a folder or a pattern.")
    once: dict[str, str] = {}
    for path in found:
        once.setdefault(os.path.abspath(path), path)
    return list(once.values())


def name_relative(paths: Sequence[str]) -> list[str]:
    """Names of files relative to the folder that contains all of them, with slashes: different for different files."""
    if not paths:
        return []
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [Path(os.path.relpath(path, root)).as_posix() for path in paths]


def name_outputs(names: Sequence[str], kept: tuple[str, ...], suffix: str) -> list[str]:
    """A name for what is written about each file, different for each.

    Args:
        names: of the files, all different.
        kept: suffixes that stay, in lower case.
        suffix: for all others: ``a.tif`` becomes ``a.png``, or ``a.tif.png`` if there is an ``a.png``.
    """
    taken = {name for name in names if name.lower().endswith(kept)}
    chosen = []
    for name in names:
        if not name.lower().endswith(kept):
            stem = name
            name = os.path.splitext(stem)[0] + suffix
            while name in taken:
                stem = name = f'{stem}{suffix}'
            taken.add(name)
        chosen.append(name)
    return chosen


def is_video(path: str) -> bool:
    """Whether the suffix is that of a video."""
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
        self.length = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))  # from the file's header; 0 if missing
        if not self._capture.isOpened() or 0 in self.size:
            raise UserError(f"Video '{path}' cannot be read by OpenCV: it is damaged, or its codec is unknown.")

    def frames(self, every: int = 1) -> Iterator[np.ndarray]:
        """Every n-th frame (``every``), starting with the first."""
        number = 0
        while self._capture.grab():
            if number % every == 0:
                read, frame = self._capture.retrieve()
                if not read:
                    break
                yield frame
            number += 1
        self._capture.release()
