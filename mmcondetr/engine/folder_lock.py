"""One training at a time in a work directory."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from mmcondetr.errors import UserError
from mmcondetr.writing import is_regular_file

NAME = '.training.lock'
_held: dict[str, FileLock] = {}  # by folder; a lock left by a failed training in this process is reused


def lock_folder(folder: str | os.PathLike) -> None:
    """Lock a folder until :func:`unlock_folder` or the end of the process, however it ends.

    Raises:
        UserError: another process has locked it, or the lock file is a link, a folder or a pipe.
    """
    path = str(Path(folder).resolve() / NAME)
    if os.path.lexists(path) and not is_regular_file(path):  # locking would empty the file that a link leads to
        raise UserError(
            f"work_dir '{folder}': {NAME} in it is not a regular file (but a link, a folder or a pipe): remove it."
        )
    lock = _held.setdefault(path, FileLock(path))
    try:
        if not lock.is_locked:
            lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"work_dir '{folder}': another training is running in it (it holds {NAME} there). Give this one a "
            '--work-dir of its own, or wait for the end of the other.'
        ) from error
    except NotImplementedError:  # a file system without locks
        pass


def unlock_folder(folder: str | os.PathLike) -> None:
    """Unlock a folder."""
    lock = _held.pop(str(Path(folder).resolve() / NAME), None)
    if lock is not None:
        lock.release()
