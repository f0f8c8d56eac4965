"""Atomic writing: a file or folder exists complete or not at all, whenever the process is killed."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmcondetr.errors import UserError

_UMASK = os.umask(0)
os.umask(_UMASK)


def file_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_regular_file(path: str | os.PathLike) -> bool:
    """Whether ``path`` itself is a file: no link, no folder, no pipe and no device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success, the file written there replaces ``path``.

    Raises:
        UserError: ``path`` is a folder.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        raise UserError(f"'{path}' is a folder, and a file of that name is to be written: remove or rename it.")
    # In a folder that others can write to, nobody can put a link there beforehand: the name cannot be guessed.
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp')
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # safetensors makes files readable by their owner only
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # not every system can open a folder; the rename itself is done
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str | os.PathLike) -> list[str]:
    """Remove temporary files that a killed process left in ``folder``; returns their names.

    Those of a running process are kept: it may still be writing them.
    """
    found = {path: re.search(r'\.(\d+)\.tmp$', path.name) for path in sorted(Path(folder).glob('.*.tmp'))}
    leftovers = [
        path for path, match in found.items() if match and is_regular_file(path) and not _is_another(int(match[1]))
    ]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return [path.name for path in leftovers]


def _is_another(process: int) -> bool:
    """Whether another process with this number is running."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; on success, it replaces ``path``."""
    path = Path(os.path.abspath(path))
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as scratch:
        new, old = Path(scratch) / 'new', Path(scratch) / 'old'
        new.mkdir()
        yield new
        if os.path.lexists(path):
            os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            if os.path.lexists(old) and not os.path.lexists(path):
                os.rename(old, path)
            raise
