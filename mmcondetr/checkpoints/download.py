"""Downloading checkpoints: resumable, verified, and moved to the final name only when complete."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import urllib.error
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from filelock import FileLock, Timeout
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mmcondetr.checkpoints.http_requests import Watchdog, describe, quote_url, request
from mmcondetr.errors import UserError
from mmcondetr.writing import file_sha256

_CHUNK = 1 << 20
_TRIES = 4
_LARGE = 8 << 20  # files of at least this size get a progress bar
_LARGEST = 8 << 30  # bytes; no detector checkpoint is this large
_WAIT = 2 * 3600  # seconds to wait for another process that is fetching the same file
_DATE = re.compile(  # YYYYMMDD of this or the last century, perhaps with hhmm or hhmmss
    r'(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?)?'
)
_ETAG = re.compile(r'"[!#-~]*"')  # a strong one, that can be sent back
_HTTP_DATE = re.compile(r'[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT')
_APART = timedelta(minutes=1)  # of Date and Last-Modified, so that differences of clocks do not matter


def hash_prefix(name: str) -> str | None:
    """The start of the SHA-256 in a file name such as ``resnet50-0676ba61.pth``; None if there is none.

    As in torch.hub, it is the last part after a hyphen, of at least 8 hexadecimal digits. Other than there, a date is
    none: ``my-detr-20231205.pth``, or with the time, ``-202312051530``. Other digits are one, as 1 of 43 starts of a
    hash has no letter; 1 of 58,000 looks like a date, and its file is not compared.
    """
    found = re.search(r'-([0-9a-f]{8,64})\.[A-Za-z]+$', name)
    return found[1] if found and not _DATE.fullmatch(found[1]) else None


def final_path(url: str, folder: str | os.PathLike | None = None) -> Path:
    """Where the file of a URL is stored: in PyTorch's checkpoint folder unless another is given.

    A name with a hash identifies the file; any other (``model.safetensors``) gets a folder per URL.
    """
    folder = Path(folder or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    name = re.sub(r'[\0-\x1f/\\]', '_', unquote(urlsplit(url).path).rpartition('/')[2])
    name = 'checkpoint' if name in ('', '.', '..') else name
    return folder / name if hash_prefix(name) else folder / hashlib.sha256(url.encode()).hexdigest()[:12] / name


def download(url: str, folder: str | os.PathLike | None = None, check: Callable[[str], Any] = lambda path: None) -> str:
    """Download a URL unless present; returns the path of the complete, verified file.

    A partial download is stored next to it as ``part-<name>`` and resumed by the next call if the server says that it
    still has the same file; otherwise it starts again. One process at a time downloads a file while the others wait.

    Args:
        url: as in a browser; letters beyond ASCII and blanks in it are quoted.
        folder: where to store files; PyTorch's checkpoint folder if None.
        check: opens the file before it is moved to its final name; raises UserError if it is not a checkpoint.

    Raises:
        UserError: the URL is malformed, the server does not answer in time or does not have the file, the connection
            fails repeatedly, the disk is full, or the content is too large, not a checkpoint, or does not match the
            hash in its name.
    """
    url = quote_url(url)
    path = final_path(url, folder)
    if path.is_file() and _is_intact(path):
        return str(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f'.{path.name}.lock'), timeout=_WAIT):
            if not (path.is_file() and _is_intact(path)):
                _fetch(url, path, check)
    except Timeout as error:
        raise UserError(f'{url}: another process has been fetching it for {_WAIT // 60} minutes ({path}).') from error
    except OSError as error:
        raise UserError(f'{url}: cannot be written to {path.parent}: {error.strerror or error}.') from error
    return str(path)


def _fetch(url: str, path: Path, check: Callable[[str], Any]) -> None:
    part = path.with_name(f'part-{path.name}')  # keeps the suffix, which selects the reader
    for attempt in range(_TRIES):
        try:
            _receive(url, part)
            break
        except urllib.error.HTTPError as error:
            raise UserError(f'{url}: {describe(error)}.') from error
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            if attempt == _TRIES - 1:
                raise UserError(
                    f'{url}: the connection failed {_TRIES} times, last with "{describe(error)}"; {_say_kept(part)}.'
                ) from error
    _verify(url, part, path, check)
    os.replace(part, path)
    _validator_file(part).unlink(missing_ok=True)


def _say_kept(part: Path) -> str:
    """The end of a sentence; removes a part that cannot be resumed."""
    have, _ = _read_part(part)
    if have:
        return f'{have} bytes are kept in {part}, from which the next attempt resumes'
    _drop(part)
    return 'nothing is kept'


def _validator_file(part: Path) -> Path:
    """File with the validator of the file that ``part`` is the beginning of."""
    return part.with_name(part.name + '.etag')


def _read_part(part: Path) -> tuple[int, str]:
    """Bytes of the part, and the validator of its file; (0, '') if it cannot be resumed."""
    try:
        have, validator = part.stat().st_size, _validator_file(part).read_text(encoding='ascii')
    except (OSError, UnicodeDecodeError):
        return 0, ''
    return (have, validator) if have and (_ETAG.fullmatch(validator) or _HTTP_DATE.fullmatch(validator)) else (0, '')


def _find_validator(headers: http.client.HTTPMessage) -> str | None:
    """What changes with every byte of the file of a response; None if nothing says so.

    Its ETag unless that is weak. Without one, its Last-Modified if the response is younger by :data:`_APART`: then it
    is strong, too, and may be sent as If-Range (RFC 9110, §8.8.2.2 and §13.1.5).
    """
    etag, modified, date = (headers.get(name) for name in ('ETag', 'Last-Modified', 'Date'))
    if etag is not None:
        return etag if _ETAG.fullmatch(etag) else None
    if not all(_HTTP_DATE.fullmatch(value or '') for value in (modified, date)):
        return None
    try:
        return modified if parsedate_to_datetime(date) - parsedate_to_datetime(modified) >= _APART else None
    except ValueError:  # the 31st of February
        return None


def _goes_on(response: http.client.HTTPResponse, have: int, validator: str) -> bool:
    """Whether a partial response is of the file that the part is of, from its end to the file's."""
    found = re.fullmatch(r'bytes (\d{1,18})-(\d{1,18})/(\d{1,18})', response.headers.get('Content-Range') or '')
    first, last, total = map(int, found.groups()) if found else (0, 0, 0)
    complete = first == have and last == total - 1 and response.length == total - have
    return complete and _find_validator(response.headers) == validator


def _open(url: str, part: Path) -> tuple[http.client.HTTPResponse, int]:
    """A response with the bytes that the part lacks, or with all, and which byte of the file is its first.

    It is resumed only if the server confirms that it has the file that the part is of: a file that was exchanged
    between two tries would become a mixture, which no reader of weights notices.
    """
    have, validator = _read_part(part)
    if have:
        try:
            response = request(url, {'Range': f'bytes={have}-', 'If-Range': validator})
            if response.status != 206:
                return response, 0
            if _goes_on(response, have, validator):
                return response, have
            response.close()
        except urllib.error.HTTPError as error:
            if error.code != 416:  # there is nothing after the part, which is whole or of another file
                raise
            error.close()
    response = request(url, {})
    if response.status == 206:
        response.close()
        raise OSError('the server sends a part of the file when asked for all of it')
    return response, 0


def _receive(url: str, part: Path) -> None:
    """Append the missing bytes to the part.

    Raises:
        OSError: the response was incomplete or too slow.
        UserError: the file is larger than the free disk space or than any checkpoint, or the server redirects to an
            invalid address.
    """
    response, start = _open(url, part)
    with response:
        if not start:
            _drop(part)  # before its validator is exchanged
        total = start + response.length if response.length is not None else None
        room = shutil.disk_usage(part.parent).free + start
        limit = min(_LARGEST, room if total else room // 2)  # without a length, use at most half of the disk
        if (total or 0) > limit:
            _drop(part)
            raise UserError(f'{url}: the server announces {total} bytes, but at most {limit} can be stored.')
        if not start and (validator := _find_validator(response.headers)):
            _validator_file(part).write_text(validator, encoding='ascii')
        with (
            open(part, 'ab') as file,
            _progress(part.stem, start, total) as advance,
            Watchdog(response.connected) as watchdog,
        ):
            while chunk := response.read1(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
                watchdog.received += len(chunk)
                if start + watchdog.received > limit:
                    _drop(part)
                    raise UserError(f'{url}: received more than the limit of {limit} bytes. Nothing was kept.')
    received = start + watchdog.received
    if total is not None and received < total:
        raise OSError(f'the response ended after {received} of {total} bytes')


class _Bar:
    """A progress bar that a ``with`` block advances."""

    def __init__(self, name: str, start: int, total: int) -> None:
        self.progress = Progress(
            TextColumn('{task.description}', markup=False),  # braces in a name are no format
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


def _is_intact(path: Path) -> bool:
    prefix = hash_prefix(path.name)
    return prefix is None or file_sha256(path).startswith(prefix)


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _verify(url: str, part: Path, path: Path, check: Callable[[str], Any]) -> None:
    """Remove the part and raise if it is not the expected file."""
    with open(part, 'rb') as file:
        start = file.read(64)
    prefix, actual = hash_prefix(path.name), None
    if start.lstrip(b'\xef\xbb\xbf \t\r\n')[:1] == b'<':
        reason = 'the response is an HTML or XML page, not a checkpoint'
    elif not start:
        reason = 'the response is empty'
    elif prefix is not None and not (actual := file_sha256(part)).startswith(prefix):
        reason = f'its SHA-256 starts with {actual[: len(prefix)]}, but its name has {prefix}'
    else:
        try:
            check(str(part))
            return
        except UserError as error:
            reason = str(error).replace(f"Checkpoint '{part}'", 'the response').rstrip('.')
    _drop(part)
    raise UserError(f'{url}: {reason}. Nothing was kept; check the URL or download it again.')
