"""What DetInferencer takes as images: files, URLs and arrays with limits, and one line for anything else."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from loopback_server import serving

from mmcondetr.checkpoints import http_requests
from mmcondetr.errors import UserError
from mmcondetr.inference import det_inferencer as module
from mmcondetr.inference.det_inferencer import DetInferencer

NAME = 'conditional-detr_r18_small_1xb16-24e_shapes'
PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
ENCODED = cv2.imencode('.png', PIXELS)[1].tobytes()


@pytest.fixture(scope='module')
def inferencer(root):
    weights = root / 'configs/shapes/conditional-detr_r18_small_shapes-start.safetensors'
    return DetInferencer(NAME, weights=str(weights), device='cpu', show_progress=False)


@pytest.fixture
def server(monkeypatch):
    """Sends a picture, or for /flood.png and /drip.png what does not end; counts requests and pieces sent."""
    requests, sent = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(404 if 'none' in self.path else 200)
            self.end_headers()
            piece, pause = {'/flood.png': (bytes(1 << 20), 0), '/drip.png': (b'a', 0.1)}.get(self.path, (ENCODED, 0))
            for _ in range(256 if '/flood' in self.path else 100 if pause else 1):
                self.wfile.write(piece)
                sent.append(piece)
                time.sleep(pause)

        def log_message(self, *_):
            pass

    with serving(Handler, monkeypatch) as url:
        yield url, requests, sent


def same(found, expected):
    return found['predictions'] == expected['predictions'] and len(found['predictions']) > 0


def with_value(value):
    pixels = PIXELS.astype(np.float32)
    pixels[3, 5, 1] = value
    return pixels


ARRAY = r'an image array is \(height, width, 3\), BGR, of uint8 or another type of numbers; inputs is '


@pytest.mark.parametrize(
    'given, message',
    [
        (None, 'inputs is of type NoneType'),
        (b'abc', 'inputs is of type bytes'),
        (torch.zeros(3, 48, 64), 'inputs is of type Tensor'),
        (Path('x.png'), 'inputs is of type .*Path'),
        ([PIXELS, 5], r'inputs\[1\] is of type int'),
        ([[PIXELS]], r'inputs\[0\] is of type list'),
        (dict(img='x.png'), r"inputs\['img'\] is of type str"),
        (dict(img_path=PIXELS), r"inputs\['img_path'\] is of type ndarray"),
        ([{}], r"inputs\[0\]\['img_path'\] is of type NoneType"),
        (PIXELS[..., 0], ARRAY + r'\(48, 64\) of uint8'),
        (PIXELS[:0], ARRAY + r'\(0, 64, 3\) of uint8'),
        (PIXELS[None], ARRAY + r'\(1, 48, 64, 3\) of uint8'),
        (PIXELS.transpose(2, 0, 1), ARRAY + r'\(3, 48, 64\) of uint8'),
        (PIXELS.astype(complex), ARRAY + r'\(48, 64, 3\) of complex128'),
        (PIXELS.astype(object), ARRAY + r'\(48, 64, 3\) of object'),
        (PIXELS.astype('>f4'), ARRAY + r'\(48, 64, 3\) of >f4'),
        (PIXELS > 9, ARRAY + r'\(48, 64, 3\) of bool'),
        (with_value(np.nan), r'inputs has values that are not finite \(NaN or infinity\)'),
        ([PIXELS, with_value(-np.inf)], r'inputs\[1\] has values that are not finite'),
        (np.zeros((1, 501, 3), np.uint8), 'inputs is 501x1 pixels: nothing is left'),
        ('', "Image file '' cannot be read: No such file or directory.$"),
        ('gone.png', "Image file 'gone.png' cannot be read: No such file or directory.$"),
        (['x\0.png'], 'cannot be read: embedded null byte'),
        ('ftp://host/x.png', "Image 'ftp://host/x.png': mmengine knows no storage 'ftp'"),
        (['file:///etc/passwd'], "Image 'file:///etc/passwd': mmengine knows no storage 'file'"),
        ('http://[::1/x.png', 'is not a valid URL'),
    ],
)
def test_what_is_no_image_is_one_line(inferencer, given, message):
    with pytest.raises(UserError, match=message) as error:
        inferencer(given)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('kind', ['uint16', 'int16', 'float32', 'float64'])
def test_arrays_of_other_numbers_are_taken_as_before(inferencer, kind):
    assert same(inferencer(PIXELS.astype(kind)), inferencer(PIXELS))


def test_a_file_is_read_with_the_limits_of_all_images(inferencer, tmp_path):
    (tmp_path / 'whole.png').write_bytes(ENCODED)
    assert same(inferencer(str(tmp_path)), inferencer([PIXELS])), 'a folder'
    assert same(inferencer(dict(img_path=str(tmp_path / 'whole.png'))), inferencer(dict(img=PIXELS)))
    (tmp_path / 'cut.png').write_bytes(ENCODED[:-1])
    with pytest.raises(UserError, match=r"cut.png' is truncated: it ends after \d+ bytes, before the image does\.$"):
        inferencer(str(tmp_path / 'cut.png'))


def test_an_image_at_a_url_is_predicted_and_drawn_as_a_file_is(inferencer, server, tmp_path):
    (tmp_path / 'photo.png').write_bytes(ENCODED)
    url, requests, _ = server
    drawn = dict(return_vis=True, batch_size=2)
    found = inferencer([f'{url}/photo.png', PIXELS], out_dir=str(tmp_path / 'out'), **drawn)
    expected = inferencer([str(tmp_path / 'photo.png'), PIXELS], **drawn)
    assert same(found, expected) and requests == ['/photo.png'], 'asked for once'
    assert np.array_equal(found['visualization'], expected['visualization'])
    assert (tmp_path / 'out/vis/photo.png').exists()
    inferencer(f'{url}/', return_vis=True)  # without a name


@pytest.mark.parametrize(
    'path, message',
    [
        ('flood.png', '/flood.png: it is larger than 1048576 bytes'),
        ('drip.png', '/drip.png: the connection failed: less than 1024 bytes/s'),
        ('none.png', '/none.png: the server answers 404'),
    ],
)
def test_a_url_is_read_with_limits(inferencer, server, monkeypatch, path, message):
    monkeypatch.setattr(module, '_MOST_BYTES', 1 << 20)
    monkeypatch.setattr(http_requests, '_WINDOW', 0.5)
    url, _, sent = server
    with pytest.raises(UserError, match=message):
        inferencer(f'{url}/{path}')
    assert len(sent) < 64, 'it used to be read to its end'
