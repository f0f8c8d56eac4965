"""Checkpoints by URL from a loopback server that breaks, lies and answers with pages."""

import hashlib
import re
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from loopback_server import serving

from mmcondetr.checkpoints.download import download, final_path, hash_prefix, quote_url
from mmcondetr.errors import UserError

CONTENT = bytes(range(256)) * 2000


def holds(path, content: bytes) -> bool:
    """Whether a file has this content; pytest would look for hours for where half a million bytes differ."""
    return Path(path).read_bytes() == content


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
        self.checks = True  # If-Range
        self.content_range = 'bytes {start}-{last}/{size}'
        self.requests, self.conditions = [], []
        self.etag = '"1"'
        self.modified = None
        self.redirects = {}
        self.after_a_break = lambda: None


@pytest.fixture
def server(monkeypatch):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get('Range')
            state.requests.append(asked)
            state.conditions.append(self.headers.get('If-Range'))
            if self.path in state.redirects:
                self.send_response(302)
                self.send_header('Location', state.redirects[self.path])
                return self.end_headers()
            content = state.files.get(self.path)
            if content is None:
                return self.send_error(404)
            start = int(re.match(r'bytes=(\d+)-', asked).group(1)) if asked and state.ranges else 0
            if state.checks and self.headers.get('If-Range') not in (None, state.etag, state.modified):
                start = 0
            if start >= len(content) > 0:
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(content)}')
                self.send_header('Content-Length', '0')
                return self.end_headers()
            self.send_response(206 if start else 200)
            if start:
                last, size = len(content) - 1, len(content)
                self.send_header('Content-Range', state.content_range.format(start=start, last=last, size=size))
            self.send_header('Content-Length', str(len(content) - start))
            for name, value in (('ETag', state.etag), ('Last-Modified', state.modified)):
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            body = content[start:]
            if state.break_after:
                body = body[: state.break_after.pop(0)]
                state.after_a_break()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with serving(Handler, monkeypatch) as state.url:
        yield state


def test_hash_prefix_is_read_from_the_name():
    assert hash_prefix('resnet50-0676ba61.pth') == '0676ba61'
    assert hash_prefix('conditional-detr_r50_8xb2-50e_coco_20221121_180202-c83a1dc0.pth') == 'c83a1dc0'
    assert hash_prefix('ConditionalDETR_r50_epoch50.pth') is None
    assert hash_prefix('conditional-detr-resnet-50.pth') is None


@pytest.mark.parametrize('date', ['20231205', '19991231', '202312051530', '20231205153059'])
def test_a_date_is_no_hash(server, tmp_path, date):
    server.files[f'/my-detr-{date}.pth'] = CONTENT
    path = download(f'{server.url}/my-detr-{date}.pth', tmp_path)
    assert holds(path, CONTENT) and path.endswith(f'/my-detr-{date}.pth')


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
    assert holds(path, CONTENT) and path.endswith('/meine gewichte_für.pth')
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
    assert holds(download(f'{server.url}/model.safetensors', tmp_path), CONTENT)


def test_files_of_one_name_from_two_addresses_are_kept_apart(tmp_path):
    one, two = (final_path(f'https://host/{repository}/model.safetensors', tmp_path) for repository in 'ab')
    assert one != two and one.name == two.name == 'model.safetensors'
    assert final_path('https://host/x-0123456789.pth?download=1', tmp_path) == tmp_path / 'x-0123456789.pth'


def test_a_file_is_fetched_once(server, tmp_path):
    path = download(f'{server.url}/{NAME}', tmp_path)
    assert holds(path, CONTENT) and path == str(tmp_path / NAME)
    assert download(f'{server.url}/{NAME}', tmp_path) == path
    assert server.requests == [None]
    assert names(tmp_path) == [NAME]


def test_a_damaged_copy_is_fetched_again(server, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[:100])
    assert holds(download(f'{server.url}/{NAME}', tmp_path), CONTENT)


def test_it_goes_on_where_the_connection_broke(server, tmp_path):
    server.break_after = [1000, 50000]
    assert holds(download(f'{server.url}/{NAME}', tmp_path), CONTENT)
    assert server.requests == [None, 'bytes=1000-', 'bytes=51000-']


def test_a_connection_that_always_breaks_leaves_no_file_and_the_next_call_goes_on(server, tmp_path):
    server.break_after = [1000] * 4
    with pytest.raises(UserError, match=r'failed 4 times.*4000 bytes are kept'):
        download(f'{server.url}/{NAME}', tmp_path)
    assert not (tmp_path / NAME).exists() and (tmp_path / f'part-{NAME}').stat().st_size == 4000
    assert holds(download(f'{server.url}/{NAME}', tmp_path), CONTENT)
    assert server.requests[-1] == 'bytes=4000-'
    assert names(tmp_path) == [NAME]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.break_after, server.ranges = [1000], False
    assert holds(download(f'{server.url}/{NAME}', tmp_path), CONTENT)


def test_another_file_at_the_address_is_not_mixed_with_the_part(server, tmp_path):
    url = f'{server.url}/model.safetensors'
    server.break_after = [1000] * 4
    with pytest.raises(UserError):
        download(url, tmp_path)
    server.files['/model.safetensors'], server.etag = CONTENT[::-1], '"2"'
    assert holds(download(url, tmp_path), CONTENT[::-1])


LONG_AGO, LONGER_AGO = (formatdate(time.time() - days * 86400, usegmt=True) for days in (1, 2))


@pytest.mark.parametrize(
    'etags, dates',
    [
        (('W/"1"', 'W/"2"'), (None, None)),
        (('W/"1"', 'W/"1"'), (None, None)),
        (('W/"1"', 'W/"1"'), (LONG_AGO, LONG_AGO)),  # with an ETag, no date may be sent
        (('"1"', '"2"'), (None, None)),
        (('"1"', None), (None, None)),
        ((None, None), (None, None)),
        ((None, None), (LONGER_AGO, LONG_AGO)),
        ((None, None), ('now', 'now')),  # of the last minute: it may have changed within a second
        ((None, None), ('Sun, 31 Feb 2021 00:00:00 GMT',) * 2),
    ],
)
def test_a_file_that_changes_between_two_tries_is_no_mixture(server, tmp_path, etags, dates):
    """Also if the server ignores If-Range, and sends the rest of another file of the same length."""
    dates = [formatdate(usegmt=True) if date == 'now' else date for date in dates]
    server.break_after, server.checks = [1000], False
    server.etag, server.modified = etags[0], dates[0]

    def change():
        server.files['/model.safetensors'] = CONTENT[::-1]
        server.etag, server.modified = etags[1], dates[1]

    server.after_a_break = change
    assert holds(download(f'{server.url}/model.safetensors', tmp_path), CONTENT[::-1])


def test_it_goes_on_where_a_server_without_etags_names_an_old_date(server, tmp_path):
    server.break_after, server.etag, server.modified = [1000], None, LONG_AGO
    assert holds(download(f'{server.url}/model.safetensors', tmp_path), CONTENT)
    assert server.requests == [None, 'bytes=1000-'] and server.conditions == [None, LONG_AGO]


@pytest.mark.parametrize(
    'content_range',
    [
        *('bytes 999-{last}/{size}', 'bytes {start}-{last}/*', 'bytes 10000-{last}/{size}', 'bytes */{size}', ''),
        *('bytes {start}-{start}/{size}', 'bytes {start}-{last}/1', 'bytes {start}-{last}/{size}0', 'pages 1000-1/1'),
    ],
)
def test_another_range_than_was_asked_for_is_not_taken(server, tmp_path, content_range):
    """Also if the name has no hash, by which it would be found."""
    server.break_after, server.content_range = [1000], content_range
    assert holds(download(f'{server.url}/model.safetensors', tmp_path), CONTENT)
    assert server.requests == [None, 'bytes=1000-', None]


def test_a_part_that_nobody_asked_for_is_an_error(server, tmp_path, monkeypatch):
    monkeypatch.setattr(BaseHTTPRequestHandler, 'send_response', partial_response(BaseHTTPRequestHandler.send_response))
    with pytest.raises(UserError, match='failed 4 times, .* part of the file when asked for all of it"; nothing is'):
        download(f'{server.url}/model.safetensors', tmp_path)


def partial_response(original):
    return lambda handler, code: original(handler, 206 if code == 200 else code)


def test_what_cannot_be_resumed_is_not_said_to_be_kept(server, tmp_path):
    server.break_after, server.etag = [1000] * 4, 'W/"1"'
    with pytest.raises(UserError, match=r'failed 4 times, last with ".*"; nothing is kept\.$'):
        download(f'{server.url}/{NAME}', tmp_path)
    assert names(tmp_path) == [] and server.requests == [None] * 4


@pytest.mark.parametrize('more', [b'', b'more'])
@pytest.mark.parametrize('tag', [None, '"1"', '"2"', '"1', '\xe9'])
def test_a_part_without_a_rest_is_fetched_again(server, tmp_path, more, tag):
    """It may be whole, of another file, or without the tag that says of which."""
    (tmp_path / f'part-{NAME}').write_bytes(CONTENT + more)
    if tag is not None:
        (tmp_path / f'part-{NAME}.etag').write_text(tag, encoding='utf-8')
    assert holds(download(f'{server.url}/{NAME}', tmp_path), CONTENT)
    assert names(tmp_path) == [NAME]


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
