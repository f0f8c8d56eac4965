"""Downloads from a misbehaving server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mmcondetr.checkpoints import http_requests
from mmcondetr.errors import UserError
from mmcondetr.runtime.encoded import problem
from tools.torture.attempts import Attempt, DataLost, Silent, start
from tools.torture.ground import Ground, read_checkpoint

ENDLESS = 256 << 20
"""Bytes after which even this server stops, to protect the disk."""


class _Handler(BaseHTTPRequestHandler):
    """Answers ``/<behaviour>/<name>`` with that behaviour."""

    protocol_version = 'HTTP/1.0'  # without Content-Length the end of the connection is the end of the body

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        try:
            self.server.behaviours[self.path.split('/')[1]](self)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def answer(self, content: bytes, length: int | None = None, status: int = 200, **headers: str) -> None:
        """Send headers and the available part of the body."""
        self.send_response(status)
        if length is not None:
            self.send_header('Content-Length', str(length))
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        self.wfile.write(content)


def _behaviours(content: bytes, choice: random.Random) -> dict[str, Callable[[_Handler], None]]:
    cut = choice.randrange(1, len(content))
    seen: dict[str, int] = {}

    def whole(body: bytes, **headers: str) -> Callable[[_Handler], None]:
        return lambda handler: handler.answer(body, len(body), **headers)

    def slowly(handler: _Handler) -> None:
        handler.answer(b'', len(content))
        for byte in content[:300]:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(1)

    def endless(handler: _Handler) -> None:
        handler.answer(b'')
        for _ in range(ENDLESS >> 20):
            handler.wfile.write(bytes(1 << 20))

    def lines_after_the_last_chunk(handler: _Handler) -> None:
        handler.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n')
        for _ in range(3000):
            handler.wfile.write(b'X-Trailer: 1\r\n')
            time.sleep(0.1)

    def too_long(handler: _Handler) -> None:
        handler.answer(content, len(content))
        handler.wfile.write(bytes(1 << 20))

    def in_pieces(handler: _Handler) -> None:
        seen['pieces'] = seen.get('pieces', 0) + 1
        asked = handler.headers.get('Range')
        first = int(asked.partition('=')[2].rstrip('-')) if asked else 0
        rest = content[first:]
        headers = {'Content_Range': f'bytes {first}-{len(content) - 1}/{len(content)}'} if asked else {}
        handler.answer(rest[: len(content) // 3 + 1], len(rest), 206 if asked else 200, ETag='"1"', **headers)

    def another_each_time(handler: _Handler) -> None:
        seen['another'] = seen.get('another', 0) + 1
        handler.answer(content[: cut + seen['another']], len(content), ETag=f'"{seen["another"]}"')

    def changes_between_tries(handler: _Handler) -> None:
        if handler.path not in seen:  # half of a file, of which the rest is then sent of another
            seen[handler.path] = 1
            return handler.answer(bytes(cut), len(content), ETag='W/"1"')
        asked = handler.headers.get('Range')
        first = int(asked.partition('=')[2].rstrip('-')) if asked else 0
        headers = {'Content_Range': f'bytes {first}-{len(content) - 1}/{len(content)}'} if asked else {}
        return handler.answer(content[first:], len(content) - first, 206 if asked else 200, ETag='W/"2"', **headers)

    def redirect(piece: bytes, pause: float) -> Callable[[_Handler], None]:
        def redirected(handler: _Handler) -> None:
            handler.answer(b'', status=302, Location=f'/good/{handler.path.split("/")[2]}')
            for _ in range(ENDLESS >> 20):
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(pause)

        return redirected

    return {
        'good': whole(content),
        'html': whole(b'<html>not here</html>'),
        'html-with-bom': whole(b'\xef\xbb\xbf<!DOCTYPE html><html></html>'),
        'json': whole(b'{"error": "not found"}'),
        'text': whole(b'Not found, sorry.\n' * 20),
        'xml': whole(b'<?xml version="1.0"?><Error/>'),
        'gzip': whole(gzip.compress(content), Content_Encoding='gzip'),
        'zeros': whole(bytes(len(content))),
        'empty': whole(b''),
        'cut-with-length': lambda handler: handler.answer(content[:cut], len(content)),
        'cut-without-length': lambda handler: handler.answer(content[:cut]),
        'flipped': whole(content[:cut] + bytes([content[cut] ^ 1]) + content[cut + 1 :]),
        'too-long': too_long,
        'endless': endless,
        'slowly': slowly,
        'lines-after-the-last-chunk': lines_after_the_last_chunk,
        'in-pieces': in_pieces,
        'another-each-time': another_each_time,
        'changes-between-tries': changes_between_tries,
        'wrong-length': lambda handler: handler.answer(content, 10**13),
        '404': lambda handler: handler.answer(b'no', 2, 404),
        '500': lambda handler: handler.answer(b'no', 2, 500),
        '302-loop': lambda handler: handler.answer(b'', 0, 302, Location=handler.path),
        '302-file': lambda handler: handler.answer(b'', 0, 302, Location='file:///etc/passwd'),
        '302-ftp': lambda handler: handler.answer(b'', 0, 302, Location='ftp://127.0.0.1:1/x.pth'),
        '302-malformed': lambda handler: handler.answer(b'', 0, 302, Location='http://[::1/x.pth'),
        '302-endless': redirect(bytes(1 << 20), 0),
        '302-slowly': redirect(b'a', 5),
        '302-port': lambda handler: handler.answer(b'', 0, 302, Location='http://127.0.0.1:abc/x.pth'),
    }


GOOD = {'good', 'in-pieces', 'too-long', 'changes-between-tries', '302-endless', '302-slowly'}
"""Behaviours that may yield the right file; all others must be an error."""


def _check_cache(cache: Path) -> None:
    """Raises :class:`Silent` if a file under a final name is not a checkpoint."""
    for path in cache.rglob('*'):
        if (
            path.is_file() and path.suffix == '.pth' and not path.name.startswith('part-')
        ):  # the next attempt resumes it
            try:
                read_checkpoint(path)['state_dict']
            except Exception as error:
                raise Silent(f'{path.name} is kept and is no checkpoint: {type(error).__name__}') from error


def downloads(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Each behaviour once alone and once with three processes at a time; files that are kept must be readable."""
    content = ground.checkpoint.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    expected = read_checkpoint(ground.checkpoint)['state_dict']
    server = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    server.behaviours = _behaviours(content, choice)
    names = list(server.behaviours)
    cases = [(name, 1) for name in names] + [(name, 3) for name in ('good', 'in-pieces', 'json', 'cut-without-length')]
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def fetch(url: str, cache: Path) -> None:
        http_requests._WINDOW = 8  # seconds instead of 30, of which there are four before it gives up
        from mmcondetr.checkpoints.reading import load_from_url

        found = load_from_url(url, 'cpu', str(cache))
        found = found.get('state_dict', found)
        if any(str(found[name]) != str(value) for name, value in expected.items()):
            raise Silent('what was loaded is not what was asked for')

    def attempt(name: str, number: int, hashed: bool) -> Attempt:
        cache = ground.new('cache')
        file = f'weights-{digest}.pth' if hashed else 'weights.pth'
        url = f'http://127.0.0.1:{server.server_port}/{name}/{file}'

        def run() -> int:
            if number == 1:
                fetch(url, cache)
                return 0
            outputs = [os.open(cache.parent / f'd{n}.txt', os.O_CREAT | os.O_RDWR | os.O_TRUNC) for n in range(number)]
            ranks = [start(Attempt(str(n), lambda: fetch(url, cache)), outputs[n]) for n in range(number)]
            codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in ranks]
            for n in range(number):
                print((cache.parent / f'd{n}.txt').read_text()[-1500:])
            if name in GOOD and any(codes):
                raise DataLost(f'{sum(map(bool, codes))} of {number} processes failed with a good server')
            return next((code for code in codes if code), 0)

        hashes = ', its hash in the name' if hashed else ''
        return Attempt(
            f'{name}, {number} at once{hashes}',
            run,
            must_fail=name not in GOOD,
            seconds=120,
            check=lambda: _check_cache(cache),
        )

    def as_image(name: str) -> Attempt:
        def run() -> None:
            http_requests._WINDOW = 8
            wrong = problem(http_requests.fetch(f'http://127.0.0.1:{server.server_port}/{name}/image.png', 64 << 20))
            if wrong is not None:  # as DetInferencer does with an image at a URL
                raise UserError(wrong)

        return Attempt(f'{name}, as an image', run, must_fail=True, megabytes=1000)

    try:
        yield from map(as_image, names)
        for hashed in (False, True):
            for name, number in cases:
                if not (hashed and name in ('slowly', 'lines-after-the-last-chunk', 'endless')):
                    yield attempt(name, number, hashed)
        while True:
            yield attempt(choice.choice(('good', 'in-pieces')), 3, choice.random() < 0.5)
    finally:
        server.shutdown()
