"""Servers that answer 200 with something else, without end or a byte at a time, and several processes at once."""

from __future__ import annotations

import gzip
import io
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmcondetr.checkpoints import download as module
from mmcondetr.checkpoints import http_requests
from mmcondetr.checkpoints.download import download
from mmcondetr.checkpoints.reading import load_from_url
from mmcondetr.errors import UserError

HEAD = b'HTTP/1.1 200 OK\r\nConnection: close\r\n'


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({'layer.weight': torch.arange(1000.0)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def serve(monkeypatch):
    """Answer every request with what a function sends into the socket; returns the URL and the list of requests."""
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    listener = socket.create_server(('127.0.0.1', 0))
    requests = []

    def start(send):
        def answer(connection):
            with connection, suppress(OSError):
                requests.append(connection.recv(65536))
                send(connection)

        def loop():
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()
        return f'http://127.0.0.1:{listener.getsockname()[1]}/model.pth', requests

    yield start
    listener.close()


def kept(folder):
    return [path.name for path in folder.rglob('*') if path.is_file() and path.suffix != '.lock']


@pytest.mark.parametrize(
    'body',
    [
        b'{"error": "not found"}',
        b'Too many requests, come back later',
        b'\xef\xbb\xbf<!DOCTYPE html><html>Sign in</html>',
        gzip.compress(checkpoint()),
        checkpoint()[:-300],
    ],
    ids=['json', 'text', 'html-with-bom', 'gzip', 'cut'],
)
@pytest.mark.parametrize('length', [True, False], ids=['length', 'no-length'])
def test_a_body_that_is_no_checkpoint_is_not_kept(tmp_path, serve, body, length):
    head = HEAD + (f'Content-Length: {len(body)}\r\n'.encode() if length else b'')
    url, _ = serve(lambda connection: connection.sendall(head + b'\r\n' + body))
    with pytest.raises(UserError, match=r'model.pth: the response .* Nothing was kept'):
        load_from_url(url, 'cpu', str(tmp_path))
    assert kept(tmp_path) == []


def test_a_whole_one_without_a_length_is_taken(tmp_path, serve):
    url, _ = serve(lambda connection: connection.sendall(HEAD + b'\r\n' + checkpoint()))
    assert torch.equal(load_from_url(url, 'cpu', str(tmp_path))['layer.weight'], torch.arange(1000.0))
    assert kept(tmp_path) == ['model.pth']


class RunsCode:
    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return open, (self.trap, 'w')


@pytest.mark.parametrize('scheme', ['torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls'])
def test_models_by_name_are_read_as_carefully(tmp_path, serve, monkeypatch, scheme):
    hostile, trap, names = io.BytesIO(), tmp_path / 'trap', {}
    torch.save({'layer.weight': RunsCode(str(trap))}, hostile)
    for known in ('torchvision', 'external', 'mmcls'):
        monkeypatch.setattr(f'mmengine.runner.checkpoint.get_{known}_models', lambda: names)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    bodies = [checkpoint(), hostile.getvalue()]
    names['net'], _ = serve(lambda connection: connection.sendall(HEAD + b'\r\n' + bodies[0]))
    given = CheckpointLoader.load_checkpoint(f'{scheme}://net', map_location='cpu')
    if scheme == 'mmcls':
        assert given['state_dict'] == {}  # of a classifier mmengine keeps what is named backbone.
    else:
        assert torch.equal(given['layer.weight'], torch.arange(1000.0))
    for path in tmp_path.rglob('*.pth'):
        path.unlink()
    bodies.pop(0)
    with pytest.raises(UserError, match='model.pth'):
        CheckpointLoader.load_checkpoint(f'{scheme}://net')
    assert not trap.exists()
    with pytest.raises(UserError, match=f"Checkpoint '{scheme}://nets': mmengine knows no model of the name 'nets'"):
        CheckpointLoader.load_checkpoint(f'{scheme}://nets')


def test_a_body_without_end(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(module, '_LARGEST', 1 << 20)

    def send(connection):
        connection.sendall(HEAD + b'\r\n')
        while True:
            connection.sendall(bytes(1 << 16))

    url, _ = serve(send)
    with pytest.raises(UserError, match='more than the limit of 1048576 bytes'):
        download(url, tmp_path)
    assert kept(tmp_path) == []


def test_a_body_that_is_announced_as_too_large(tmp_path, serve):
    url, _ = serve(lambda connection: connection.sendall(HEAD + b'Content-Length: 99999999999999\r\n\r\nPK'))
    with pytest.raises(UserError, match='announces 99999999999999 bytes'):
        download(url, tmp_path)
    assert kept(tmp_path) == []


CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n'


@pytest.mark.parametrize(
    'start, more',
    [
        (HEAD + b'Content-Length: 4000000\r\n\r\n', b'O'),
        (b'HTTP/1.1 200 ', b'O'),
        (CHUNKED + b'0\r\n', b'X-Trailer: 1\r\n'),
        (CHUNKED + b'1;', b'x'),
    ],
    ids=['body', 'head', 'trailers', 'chunk-extension'],
)
def test_a_byte_at_a_time_ends(tmp_path, serve, monkeypatch, start, more):
    monkeypatch.setattr(module, '_TRIES', 2)
    for name, value in (('_WINDOW', 0.5), ('_TIMEOUT', 1)):
        monkeypatch.setattr(http_requests, name, value)

    def send(connection):
        connection.sendall(start)
        while True:
            connection.sendall(more)
            time.sleep(0.1)

    url, requests = serve(send)
    begun = time.monotonic()
    with pytest.raises(UserError, match='the connection failed 2 times'):
        download(url, tmp_path)
    assert time.monotonic() - begun < 10 and len(requests) == 2


@pytest.mark.parametrize('address', ['ftp://127.0.0.1:1/model.pth', 'gopher://host/', 'file:///etc/passwd'])
def test_a_redirect_away_from_http_is_not_followed(tmp_path, serve, address):
    head = f'HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {address}\r\n\r\n'.encode()
    url, _ = serve(lambda connection: connection.sendall(head))
    with pytest.raises(UserError, match=r'redirects to an address that is not valid|answers 302'):
        download(url, tmp_path)
    assert kept(tmp_path) == []


@pytest.mark.parametrize('piece, pause', [(bytes(1 << 20), 0), (b'a', 0.1)], ids=['flood', 'drip'])
def test_the_body_of_a_redirect_is_not_read(tmp_path, serve, piece, pause):
    """urllib reads it to its end, outside all limits; here that would be after 256 MB, or 10 s."""
    sent = []

    def send(connection):
        if len(requests) > 1:
            return connection.sendall(HEAD + b'\r\n' + checkpoint())
        connection.sendall(b'HTTP/1.1 302 Found\r\nLocation: /other.pth\r\n\r\n')
        for _ in range(256 if not pause else 100):
            connection.sendall(piece)
            sent.append(piece)
            time.sleep(pause)

    url, requests = serve(send)
    path = download(url, tmp_path)
    assert open(path, 'rb').read() == checkpoint() and b'GET /other.pth' in requests[1]
    assert len(sent) < 64, 'without what the system buffers, nothing'


@pytest.mark.parametrize(
    'answer, message',
    [
        (HEAD + b'Content-Length: 2000\r\n\r\n', 'model.pth: it is larger than 1000 bytes'),
        (HEAD + b'\r\n' + bytes(1001), 'model.pth: it is larger than 1000 bytes'),
        (HEAD + b'Content-Length: 900\r\n\r\n' + bytes(899), 'the response ended after 899 of 900 bytes'),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab', 'the connection failed: IncompleteRead'),
        (b'HTTP/1.1 500 No\r\n\r\n' + bytes(1000), r'the server answers 500 \(No\)'),
        (b'HTTP/1.1 302 Found\r\nLocation: ftp://host/\r\n\r\n', 'redirects to an address that is not valid'),
        (b'SSH-2.0\r\n', 'the connection failed'),
        (b'', 'the connection failed'),
    ],
)
def test_what_is_held_in_memory_is_limited_and_complete(serve, answer, message):
    url, _ = serve(lambda connection: connection.sendall(answer))
    with pytest.raises(UserError, match=message) as error:
        http_requests.fetch(url, 1000)
    assert '\n' not in str(error.value)


def test_a_servers_words_are_one_short_line(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(module, '_TRIES', 1)
    url, _ = serve(lambda connection: connection.sendall(b'S\rS' * 9000 + b'\r\n'))
    for call in (lambda: http_requests.fetch(url, 1000), lambda: download(url, tmp_path)):
        with pytest.raises(UserError, match='the connection failed') as error:
            call()
        assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 400


@pytest.mark.parametrize('length', [b'', b'Content-Length: 1000\r\n'])
def test_what_is_not_larger_is_held_in_memory(serve, length):
    url, _ = serve(lambda connection: connection.sendall(HEAD + length + b'\r\n' + b'a' * 1000))
    assert http_requests.fetch(url, 1000) == b'a' * 1000


def test_braces_in_the_name_of_a_large_file_are_no_format(tmp_path, serve):
    body = bytes(9 << 20)
    head = HEAD + f'Content-Length: {len(body)}\r\n\r\n'.encode()
    url, _ = serve(lambda connection: connection.sendall(head + body))
    path = download(url.replace('model', 'model-{x}-[red]'), tmp_path)
    assert path.endswith('model-{x}-[red].pth') and kept(tmp_path) == ['model-{x}-[red].pth']


FETCH = 'import sys; from mmcondetr.checkpoints.reading import load_from_url; load_from_url(*sys.argv[1:])'


def test_three_processes_at_once_fetch_it_once(tmp_path, serve, source_environment):
    """They used to share one part, and left a corrupt file under the final name."""
    body = checkpoint()

    def send(connection):
        connection.sendall(HEAD + b'\r\n')
        for start in range(0, len(body), 500):
            connection.sendall(body[start : start + 500])
            time.sleep(0.1)  # long enough for the other two to come

    url, requests = serve(send)
    processes = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', FETCH, url, 'cpu', str(tmp_path)],
            env=source_environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]
    assert len(requests) == 1 and kept(tmp_path) == ['model.pth']
