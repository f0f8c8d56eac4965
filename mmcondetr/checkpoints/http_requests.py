"""HTTP requests that end: the header, the redirects and the speed of the body are limited."""

from __future__ import annotations

import http.client
import io
import re
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from mmcondetr.errors import UserError

_TIMEOUT = 30  # seconds without a byte, and for the complete response header
_WINDOW, _SLOWEST = 30, 1 << 10  # seconds, bytes/s: a connection slower than this for so long is broken


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


class Watchdog:
    """Breaks a connection that has been too slow for :data:`_WINDOW` seconds; the ``with`` block then ends in OSError.

    Watches from a thread of its own, because a reader does not return while a server sends what is no content, such as
    lines after the last chunk.

    Attributes:
        received: bytes of content; counted by the reader.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.received, self._connected = 0, connected
        self._ended, self._too_slow = threading.Event(), False

    def __enter__(self) -> Watchdog:
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


def request(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """The response to a GET request, whose body is not read yet: read it within a :class:`Watchdog`.

    Args:
        url: valid, as :func:`quote_url` returns it.
        headers: more headers of the request.

    Raises:
        UserError: the server redirects to an invalid address.
        urllib.error.HTTPError: the server answers with an error.
        OSError, http.client.HTTPException: there is no answer in time, or none of HTTP.
    """
    asked = urllib.request.Request(url, headers={'User-Agent': 'mmcondetr', **headers})
    try:
        return urllib.request.build_opener(_HTTPHandler, _HTTPSHandler, _Redirects).open(asked, timeout=_TIMEOUT)
    except (ValueError, http.client.InvalidURL) as error:  # ours is valid
        raise UserError(f'{url}: the server redirects to an address that is not valid ({describe(error)}).') from error


def describe(error: Exception) -> str:
    """What went wrong, in one line of at most 200 characters: some of it can be the server's own words.

    Closes the response if the server answers with an error; nobody reads its body.
    """
    what = str(error)
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        what = f'the server answers {error.code} ({error.reason})'
    what = ' '.join(what.split())
    return what if len(what) <= 200 else f'{what[:197]}...'


def fetch(url: str, most: int) -> bytes:
    """What is at a URL, held in memory; for checkpoints, :func:`~mmcondetr.checkpoints.download.download`.

    Args:
        url: as in a browser; letters beyond ASCII and blanks in it are quoted.
        most: bytes that it may have.

    Raises:
        UserError: the URL is malformed, the server does not have it or does not send it completely and in time, or it
            is larger.
    """
    url, content = quote_url(url), io.BytesIO()
    too_large = UserError(f'{url}: it is larger than {most} bytes, which are the most that are read.')
    try:
        response = request(url, {})
        announced = response.length
        with response, Watchdog(response.connected) as watchdog:
            if (announced or 0) > most:
                raise too_large
            while chunk := response.read1(1 << 20):
                content.write(chunk)
                watchdog.received += len(chunk)
                if watchdog.received > most:
                    raise too_large
        if announced is not None and watchdog.received < announced:
            raise OSError(f'the response ended after {watchdog.received} of {announced} bytes')
    except urllib.error.HTTPError as error:
        raise UserError(f'{url}: {describe(error)}.') from error
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f'{url}: the connection failed: {describe(error)}.') from error
    return content.getvalue()
