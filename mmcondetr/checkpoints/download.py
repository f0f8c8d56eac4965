"""Checkpoints by URL: resumed after an interruption, verified, and never half a file under the final name."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mmcondetr.errors import UserError

_CHUNK = 1 << 20
_TRIES = 4
_LARGE = 8 << 20  # files from this size on get a progress bar
_TIMEOUT = 30  # seconds without a byte


def hash_prefix(name: str) -> str | None:
    """The start of the file's SHA-256 that its name states, as in ``resnet50-0676ba61.pth``; None without one."""
    found = re.search(r'-([0-9a-f]{8,64})\.[A-Za-z]+$', name)
    return found.group(1) if found else None


def final_path(url: str, folder: str | os.PathLike | None = None) -> Path:
    """Where the file of a URL is kept: PyTorch's folder of checkpoints unless another is given.

    A name that states its hash is the same file everywhere; any other (``model.safetensors``) gets a folder per URL.
    """
    folder = Path(folder or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    name = os.path.basename(unquote(urlsplit(url).path)) or 'checkpoint'
    return folder / name if hash_prefix(name) else folder / hashlib.sha256(url.encode()).hexdigest()[:12] / name


def download(url: str, folder: str | os.PathLike | None = None) -> str:
    """Fetch a URL unless it is there already; returns the path of the whole, verified file.

    What was received so far lies beside it under the name ``<name>.part``, from which the next call goes on.

    Raises:
        UserError: the server does not answer or has no such file, the connection breaks again and again, what came is
            an HTML page, or its SHA-256 is not the one that the name states.
    """
    path = final_path(url, folder)
    if path.is_file() and _is_intact(path):
        return str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    for attempt in range(_TRIES):
        try:
            _receive(url, part)
            break
        except urllib.error.HTTPError as error:
            raise UserError(f'{url}: the server answers {error.code} ({error.reason}).') from error
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            if attempt == _TRIES - 1:
                size = part.stat().st_size if part.exists() else 0
                raise UserError(
                    f'{url}: the connection failed {_TRIES} times, last with "{error}"; {size} bytes are '
                    f'kept in {part}, and the next try goes on from there.'
                ) from error
    _verify(url, part, path)
    os.replace(part, path)
    _tag_file(part).unlink(missing_ok=True)
    return str(path)


def _tag_file(part: Path) -> Path:
    """Beside a part: the server's ETag of the file that it is a part of."""
    return part.with_name(part.name + '.etag')


def _receive(url: str, part: Path) -> None:
    """Append to the part what is missing.

    Raises:
        OSError: fewer bytes came than the server announced.
    """
    have = part.stat().st_size if part.exists() else 0
    tag = _tag_file(part).read_text() if have and _tag_file(part).exists() else None
    headers = {'User-Agent': 'mmcondetr'}
    if have:
        headers['Range'] = f'bytes={have}-'
        if tag:
            headers['If-Range'] = tag  # the whole file comes if it is another one by now
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond what is here: it is whole, or of another file
            total = (error.headers.get('Content-Range') or '').rpartition('/')[2]
            if total == str(have):
                return
            part.unlink()
            return _receive(url, part)
        raise
    with response:
        resumed = response.status == 206 and (response.headers.get('Content-Range') or '').startswith(f'bytes {have}-')
        length = response.headers.get('Content-Length')
        start = have if resumed else 0
        total = start + int(length) if length else None
        etag = response.headers.get('ETag')
        if etag and not etag.startswith('W/'):
            _tag_file(part).write_text(etag)
        with open(part, 'ab' if resumed else 'wb') as file, _progress(part.stem, start, total) as advance:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
            received = file.tell()
    if total is not None and received < total:
        raise OSError(f'it ended after {received} of {total} bytes')


class _Bar:
    """A progress bar that a ``with`` block advances."""

    def __init__(self, name: str, start: int, total: int) -> None:
        self.progress = Progress(
            TextColumn(name),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            transient=True,
        )
        self.task = self.progress.add_task(name, total=total, completed=start)

    def __enter__(self) -> Any:
        self.progress.start()
        return lambda count: self.progress.advance(self.task, count)

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()


def _progress(name: str, start: int, total: int | None) -> Any:
    return _Bar(name, start, total) if total and total >= _LARGE else nullcontext(lambda count: None)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _is_intact(path: Path) -> bool:
    prefix = hash_prefix(path.name)
    return prefix is None or _sha256(path).startswith(prefix)


def _verify(url: str, part: Path, path: Path) -> None:
    """Raise, and remove the part, if it cannot be the file."""
    with open(part, 'rb') as file:
        start = file.read(64)
    prefix, actual = hash_prefix(path.name), None
    if start.lstrip()[:1] == b'<':
        reason = 'what came is an HTML or XML page and not a checkpoint'
    elif not start:
        reason = 'what came is empty'
    elif prefix is not None and not (actual := _sha256(part)).startswith(prefix):
        reason = f'its SHA-256 begins with {actual[: len(prefix)]}, and its name says {prefix}'
    else:
        return
    part.unlink()
    _tag_file(part).unlink(missing_ok=True)
    raise UserError(f'{url}: {reason}. Nothing was kept; check the address or download it again.')
