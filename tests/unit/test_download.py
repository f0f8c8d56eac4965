"""Checkpoints by URL from a loopback server that breaks, lies and answers with pages."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmcondetr.checkpoints.download import download, final_path, hash_prefix, quote_url
from mmcondetr.errors import UserError

CONTENT = bytes(range(256)) * 2000
NAME = f'model_20230101-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth'


def names(folder):
    """Without the lock, which must stay where it is while others may wait for it."""
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith('.lock'))


class Server:
    """What it serves, how often it breaks off and the requests that it got."""

    def __init__(self):
        self.files = {f'/{NAME}': CONTENT, '/model.safetensors': CONTENT}
        self.break_after = []  # bytes of one answer each, after which the connection ends
        self.ranges = True
        self.requests = []
        self.etag = '"1"'
        self.redirects = {}


@pytest.fixture
def server(monkeypatch):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get('Range')
            state.requests.append(asked)
            if self.path in state.redirects:
                self.send_response(302)
                self.send_header('Location', state.redirects[self.path])
                return self.end_headers()
            content = state.files.get(self.path)
            if content is None:
                return self.send_error(404)
            start = int(re.match(r'bytes=(\d+)-', asked).group(1)) if asked and state.ranges else 0
            if self.headers.get('If-Range') not in (None, state.etag):
                start = 0
            if start >= len(content) > 0:
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(content)}')
                self.send_header('Content-Length', '0')
                return self.end_headers()
            self.send_response(206 if start else 200)
            if start:
                self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
            self.send_header('Content-Length', str(len(content) - start))
            self.send_header('ETag', state.etag)
            self.end_headers()
            body = content[start:]
            self.wfile.write(body[: state.break_after.pop(0)] if state.break_after else body)

        def log_message(self, *_):
            pass

    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f'http://127.0.0.1:{http.server_port}'
    yield state
    http.shutdown()
    http.server_close()


def test_hash_prefix_is_read_from_the_name():
    assert hash_prefix('resnet50-0676ba61.pth') == '0676ba61'
    assert hash_prefix('conditional-detr_r50_8xb2-50e_coco_20221121_180202-c83a1dc0.pth') == 'c83a1dc0'
    assert hash_prefix('ConditionalDETR_r50_epoch50.pth') is None
    assert hash_prefix('conditional-detr-resnet-50.pth') is None


@pytest.mark.parametrize('date', ['20231205', '19991231', '202312051530', '20231205153059'])
def test_a_date_is_no_hash(server, tmp_path, date):
    server.files[f'/my-detr-{date}.pth'] = CONTENT
    path = download(f'{server.url}/my-detr-{date}.pth', tmp_path)
    assert open(path, 'rb').read() == CONTENT and path.endswith(f'/my-detr-{date}.pth')


@pytest.mark.parametrize('digits', ['20231305', '20230230a', '12345678', '00010000', '2023120515', '30000101'])
def test_other_digits_are_a_hash(digits):
    assert hash_prefix(f'my-detr-{digits}.pth') == digits


@pytest.mark.parametrize(
    'url, sent',
    [
        ('https://host/gewichte_für.pth', 'https://host/gewichte_f%C3%BCr.pth'),
        (' https://host/my model.pth ', 'https://host/my%20model.pth'),
        ('https://exämple.org:81/a%20b.pth?x=ü y#part', 'https://xn--exmple-cua.org:81/a%20b.pth?x=%C3%BC%20y'),
        ('http://[::1]:80/x.pth', 'http://[::1]:80/x.pth'),
        ('https://host/a+b,(c)=d~e_f.pth?download=true&v=1', 'https://host/a+b,(c)=d~e_f.pth?download=true&v=1'),
        ('https://host/\udcfcx.pth', 'https://host/%FCx.pth'),  # a byte of the command line that is no UTF-8
    ],
)
def test_a_url_is_quoted_as_in_a_browser(url, sent):
    assert quote_url(url) == sent == quote_url(sent)


@pytest.mark.parametrize(
    'url',
    [
        *('http://[::1/x.pth', 'http://h:abc/x.pth', 'http:///x.pth', 'http://exämple..invalid/x.pth', 'http://a..b/x'),
        *('http://h:99999/x.pth', 'http://me:secret@host/x.pth', 'http://a b/x.pth', 'https://host/\ud800.pth'),
    ],
)
def test_a_malformed_url_is_one_line(tmp_path, url):
    with pytest.raises(UserError, match=r'is not a valid URL: .') as error:
        download(url, tmp_path)
    assert '\n' not in str(error.value) and str(error.value).isascii()


def test_a_url_with_letters_beyond_ascii_and_blanks_is_fetched(server, tmp_path):
    server.files['/meine%20gewichte_f%C3%BCr.pth'] = CONTENT
    path = download(f'{server.url}/meine gewichte_für.pth', tmp_path)
    assert open(path, 'rb').read() == CONTENT and path.endswith('/meine gewichte_für.pth')
    assert download(f'{server.url}/meine%20gewichte_f%C3%BCr.pth', tmp_path) == path, 'the same file'


@pytest.mark.parametrize('target', ['http://[::1/x.pth', 'http://127.0.0.1:abc/x.pth', 'http://a..b/x.pth'])
def test_a_redirect_to_no_url_is_one_line(server, tmp_path, target):
    server.redirects['/x.pth'] = target
    with pytest.raises(UserError, match='x.pth: the server redirects to an address that is not valid'):
        download(f'{server.url}/x.pth', tmp_path)
    assert len(server.requests) == 1


def test_a_redirect_without_end_is_one_line(server, tmp_path):
    server.redirects['/x.pth'] = '/x.pth'
    with pytest.raises(UserError, match='x.pth: the server answers 302') as error:
        download(f'{server.url}/x.pth', tmp_path)
    assert '\n' not in str(error.value)


def test_a_tag_that_cannot_be_sent_back_is_not_kept(server, tmp_path):
    server.break_after, server.etag = [1000], '"\xe9"'
    assert open(download(f'{server.url}/model.safetensors', tmp_path), 'rb').read() == CONTENT


def test_files_of_one_name_from_two_addresses_are_kept_apart(tmp_path):
    one, two = (final_path(f'https://host/{repository}/model.safetensors', tmp_path) for repository in 'ab')
    assert one != two and one.name == two.name == 'model.safetensors'
    assert final_path('https://host/x-0123456789.pth?download=1', tmp_path) == tmp_path / 'x-0123456789.pth'


def test_a_file_is_fetched_once(server, tmp_path):
    path = download(f'{server.url}/{NAME}', tmp_path)
    assert open(path, 'rb').read() == CONTENT and path == str(tmp_path / NAME)
    assert download(f'{server.url}/{NAME}', tmp_path) == path
    assert server.requests == [None]
    assert names(tmp_path) == [NAME]


def test_a_damaged_copy_is_fetched_again(server, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[:100])
    assert open(download(f'{server.url}/{NAME}', tmp_path), 'rb').read() == CONTENT


def test_it_goes_on_where_the_connection_broke(server, tmp_path):
    server.break_after = [1000, 50000]
    assert open(download(f'{server.url}/{NAME}', tmp_path), 'rb').read() == CONTENT
    assert server.requests == [None, 'bytes=1000-', 'bytes=51000-']


def test_a_connection_that_always_breaks_leaves_no_file_and_the_next_call_goes_on(server, tmp_path):
    server.break_after = [1000] * 4
    with pytest.raises(UserError, match=r'failed 4 times.*4000 bytes are kept'):
        download(f'{server.url}/{NAME}', tmp_path)
    assert not (tmp_path / NAME).exists() and (tmp_path / f'part-{NAME}').stat().st_size == 4000
    assert open(download(f'{server.url}/{NAME}', tmp_path), 'rb').read() == CONTENT
    assert server.requests[-1] == 'bytes=4000-'
    assert names(tmp_path) == [NAME]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.break_after, server.ranges = [1000], False
    assert open(download(f'{server.url}/{NAME}', tmp_path), 'rb').read() == CONTENT


def test_another_file_at_the_address_is_not_mixed_with_the_part(server, tmp_path):
    url = f'{server.url}/model.safetensors'
    server.break_after = [1000] * 4
    with pytest.raises(UserError):
        download(url, tmp_path)
    server.files['/model.safetensors'], server.etag = CONTENT[::-1], '"2"'
    assert open(download(url, tmp_path), 'rb').read() == CONTENT[::-1]


def test_a_part_that_is_whole_is_taken(server, tmp_path):
    (tmp_path / f'part-{NAME}').write_bytes(CONTENT)
    assert open(download(f'{server.url}/{NAME}', tmp_path), 'rb').read() == CONTENT


def test_a_part_that_is_too_long_is_dropped(server, tmp_path):
    (tmp_path / f'part-{NAME}').write_bytes(CONTENT + b'more')
    assert open(download(f'{server.url}/{NAME}', tmp_path), 'rb').read() == CONTENT


@pytest.mark.parametrize(
    'content, message',
    [
        (b'<!DOCTYPE html><html>Sign in</html>', 'HTML or XML page'),
        (b'', 'empty'),
        (CONTENT + b'!', r'SHA-256 starts with [0-9a-f]{8}, but its name has'),
    ],
)
def test_what_cannot_be_the_file_is_not_kept(server, tmp_path, content, message):
    server.files[f'/{NAME}'] = content
    with pytest.raises(UserError, match=message):
        download(f'{server.url}/{NAME}', tmp_path)
    assert names(tmp_path) == []


def test_a_missing_file_and_a_dead_server_are_one_line(server, tmp_path):
    with pytest.raises(UserError, match='answers 404'):
        download(f'{server.url}/other-01234567.pth', tmp_path)
    with pytest.raises(UserError, match='the connection failed'):
        download('http://127.0.0.1:9/model-01234567.pth', tmp_path)
    assert names(tmp_path) == []


def test_mmengine_loads_a_url_through_it(server, tmp_path, monkeypatch):
    import torch
    from mmengine.runner.checkpoint import _load_checkpoint

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    torch.save({'conv1.weight': torch.arange(4.0)}, tmp_path / 'some.pth')
    server.files['/some.pth'] = (tmp_path / 'some.pth').read_bytes()
    checkpoint = _load_checkpoint(f'{server.url}/some.pth', map_location='cpu')
    assert torch.equal(checkpoint['conv1.weight'], torch.arange(4.0))
    assert list((tmp_path / 'checkpoints').rglob('some.pth'))
