"""Downloading checkpoints: resumable, verified, and moved to the final name only when complete."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import torch
from filelock import FileLock, Timeout
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mmcondetr.errors import UserError
from mmcondetr.writing import file_sha256

_CHUNK = 1 << 20
_TRIES = 4
_LARGE = 8 << 20  # files of at least this size get a progress bar
_LARGEST = 8 << 30  # bytes; no detector checkpoint is this large
_TIMEOUT = 30  # seconds without a byte, and for the complete response header
_WINDOW, _SLOWEST = 30, 1 << 10  # seconds, bytes/s: a connection slower than this for so long is broken
_WAIT = 2 * 3600  # seconds to wait for another process that is fetching the same file
_DATE = re.compile(  # YYYYMMDD of this or the last century, perhaps with hhmm or hhmmss
    r'(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?)?'
)


class _HeaderTimeout:
    """Limits the total time for the response header; a socket timeout restarts at every byte."""

    timed_out = False

    def getresponse(self) -> http.client.HTTPResponse:
        timer = threading.Timer(_TIMEOUT, self._abort)
        timer.daemon = True
        timer.start()
        connected = self.sock  # which http.client forgets when the response is to be the last
        try:
            response = super().getresponse()
            response.connected = connected
        finally:
            timer.cancel()
        if self.timed_out:  # http.client accepts a partial header
            raise TimeoutError(f'no answer within {_TIMEOUT} s')
        return response

    def _abort(self) -> None:
        self.timed_out = True
        if self.sock is not None:
            self.sock.shutdown(socket.SHUT_RDWR)


class _HTTPConnection(_HeaderTimeout, http.client.HTTPConnection):
    pass


class _HTTPSConnection(_HeaderTimeout, http.client.HTTPSConnection):
    pass


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPConnection, request)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPSConnection, request, context=self._context)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTP and HTTPS alone, and leaves their bodies unread.

    urllib reads a redirect's body to its end, however long that is and however long it takes.
    """

    def redirect_request(self, request, response, code, message, headers, address):
        scheme = urlsplit(address).scheme
        if scheme not in ('http', 'https'):
            raise ValueError(f'{scheme}: is neither http: nor https:')
        response.close()  # of which nothing more is read, as of an empty one
        return super().redirect_request(request, response, code, message, headers, address)


class _Watchdog:
    """Breaks a connection that has been too slow for :data:`_WINDOW` seconds; the ``with`` block then ends in OSError.

    Watches from a thread of its own, because a reader does not return while a server sends what is no content, such as
    lines after the last chunk.

    Attributes:
        received: bytes of content; counted by the reader.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.received, self._connected = 0, connected
        self._ended, self._too_slow = threading.Event(), False

    def __enter__(self) -> _Watchdog:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def _watch(self) -> None:
        before = 0
        while not self._ended.wait(_WINDOW):
            if self.received - before < _WINDOW * _SLOWEST:
                self._too_slow = True
                with suppress(OSError):
                    self._connected.shutdown(socket.SHUT_RDWR)
                return
            before = self.received

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        if self._too_slow:
            raise OSError(f'less than {_SLOWEST} bytes/s for {_WINDOW} s')


def hash_prefix(name: str) -> str | None:
    """The start of the SHA-256 in a file name such as ``resnet50-0676ba61.pth``; None if there is none.

    As in torch.hub, it is the last part after a hyphen, of at least 8 hexadecimal digits. Other than there, a date is
    none: ``my-detr-20231205.pth``, or with the time, ``-202312051530``. Other digits are one, as 1 of 43 starts of a
    hash has no letter; 1 of 58,000 looks like a date, and its file is not compared.
    """
    found = re.search(r'-([0-9a-f]{8,64})\.[A-Za-z]+$', name)
    return found[1] if found and not _DATE.fullmatch(found[1]) else None


def quote_url(url: str) -> str:
    """The URL as a browser would send it: blanks and letters beyond ASCII quoted, the host in IDNA.

    Raises:
        UserError: it is malformed, or names a user.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
        if not host:
            raise ValueError('it names no host')
        if '@' in parts.netloc:
            raise ValueError('a user name or password cannot be sent')
        if ':' in host:  # IPv6
            host = f'[{host}]'
        else:
            host = host.encode('idna').decode()
            if not re.fullmatch(r'[\w.-]+', host):
                raise ValueError(f'{host!r} is no name of a host')
        path, query = (
            quote(part, "/%!$&'()*+,;=:@~?" + more, errors='surrogateescape')
            for part, more in ((parts.path, ''), (parts.query, '[]'))
        )
    except ValueError as error:  # UnicodeError is one
        raise UserError(f'{url!a} is not a valid URL: {error}.') from error
    return urlunsplit((parts.scheme, host if port is None else f'{host}:{port}', path, query, ''))


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

    A partial download is stored next to it as ``part-<name>`` and resumed by the next call. One process at a time
    downloads a file while the others wait.

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
            error.close()  # its body is unread, too
            reason = ' '.join(str(error.reason).split())[:200]  # urllib's own has several lines
            raise UserError(f'{url}: the server answers {error.code} ({reason}).') from error
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            if attempt == _TRIES - 1:
                size = part.stat().st_size if part.exists() else 0
                raise UserError(
                    f'{url}: the connection failed {_TRIES} times, last with "{error}"; {size} bytes are '
                    f'kept in {part}, from which the next attempt resumes.'
                ) from error
    _verify(url, part, path, check)
    os.replace(part, path)
    _tag_file(part).unlink(missing_ok=True)


def _tag_file(part: Path) -> Path:
    """File with the server's ETag of the file that ``part`` belongs to."""
    return part.with_name(part.name + '.etag')


def _receive(url: str, part: Path) -> None:
    """Append the missing bytes to the part.

    Raises:
        OSError: the response was incomplete or too slow.
        UserError: the file is larger than the free disk space or than any checkpoint, or the server redirects to an
            invalid address.
    """
    have = part.stat().st_size if part.exists() else 0
    tag = _tag_file(part).read_text() if have and _tag_file(part).exists() else None
    headers = {'User-Agent': 'mmcondetr'}
    if have:
        headers['Range'] = f'bytes={have}-'
        if tag:
            headers['If-Range'] = tag  # the server sends the whole file if it has changed
    try:
        opener = urllib.request.build_opener(_HTTPHandler, _HTTPSHandler, _Redirects)
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the part is either complete or of another file
            total = (error.headers.get('Content-Range') or '').rpartition('/')[2]
            if total == str(have):
                return
            part.unlink()
            return _receive(url, part)
        raise
    except (ValueError, http.client.InvalidURL) as error:  # ours is valid
        raise UserError(f'{url}: the server redirects to an address that is not valid ({error}).') from error
    with response:
        resumed = response.status == 206 and (response.headers.get('Content-Range') or '').startswith(f'bytes {have}-')
        start = have if resumed else 0
        total = start + response.length if response.length is not None else None
        room = shutil.disk_usage(part.parent).free + have
        limit = min(_LARGEST, room if total else room // 2)  # without a length, use at most half of the disk
        if (total or 0) > limit:
            _drop(part)
            raise UserError(f'{url}: the server announces {total} bytes, but at most {limit} can be stored.')
        etag = response.headers.get('ETag')
        if re.fullmatch(r'"[!#-~]*"', etag or ''):  # a strong one that can be sent back
            _tag_file(part).write_text(etag)
        with (
            open(part, 'ab' if resumed else 'wb') as file,
            _progress(part.stem, start, total) as advance,
            _Watchdog(response.connected) as watchdog,
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
    _tag_file(part).unlink(missing_ok=True)


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
