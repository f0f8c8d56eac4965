"""The best and the last checkpoint in a run's work directory."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmcondetr.errors import UserError

_STEP = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


def checkpoints_in(folder: str | os.PathLike) -> list[str]:
    """Names of the checkpoints in a work directory, ordered by epoch or iteration."""
    names = [path.name for path in Path(folder).glob('*_*.pth') if _STEP.fullmatch(path.name) and path.is_file()]
    return sorted(names, key=lambda name: int(_STEP.fullmatch(name)[1]))


def _note(folder: str | os.PathLike) -> str:
    note = Path(folder) / 'last_checkpoint'
    try:
        small = note.is_file() and note.stat().st_size < 1 << 16  # and no link to a device
        return note.read_text(encoding='utf-8').strip() if small else ''
    except (OSError, ValueError):
        return ''


def noted_checkpoint(folder: str | os.PathLike) -> str:
    """The path that the file ``last_checkpoint`` names, which may no longer exist; '' if there is no such file.

    Raises:
        UserError: it names a URL of any scheme: resuming a folder connects to no server that somebody has noted in it.
    """
    noted = _note(folder)
    if '://' in noted:
        raise UserError(
            f"'{Path(folder) / 'last_checkpoint'}' names a URL, {noted[:200]!r}, to which --resume does not connect by "
            'itself: give the URL, or a file, as --resume.'
        )
    return noted


def last_checkpoint(folder: str | os.PathLike) -> str | None:
    """The path of the last one: the one that ``last_checkpoint`` names, if it exists, else the highest number."""
    name = os.path.basename(_note(folder))  # the folder may have been moved since
    names = checkpoints_in(folder)
    if name and (Path(folder) / name).is_file():
        return os.path.join(folder, name)
    return os.path.join(folder, names[-1]) if names else None


def best_checkpoint(folder: str | os.PathLike) -> str | None:
    """The path of the best one, or of the last if the run kept no best; None if there is neither.

    A run keeps one best checkpoint of each metric: of several of one metric, the newest is the last run's.

    Raises:
        UserError: there are best checkpoints of several metrics.
    """
    best = sorted((path for path in Path(folder).glob('best_*.pth') if path.is_file()), key=os.path.getmtime)
    if len({_STEP.sub('', path.name) for path in best}) > 1:
        names = ', '.join(sorted(path.name for path in best))
        raise UserError(f"'{os.fspath(folder)}' holds several best checkpoints, {names}: name one.")
    return os.path.join(folder, best[-1].name) if best else last_checkpoint(folder)
