"""Image files: with bytes after the end, without an end, and with a huge declared size."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mmcondetr.datasets.load_image import LoadImage
from mmcondetr.datasets.read_image import read_image
from mmcondetr.errors import UserError
from mmcondetr.runtime.encoded import problem
from mmcondetr.runtime.image_headers import read_declared_size
from mmcondetr.runtime.images import read_image as read_without_torch

PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def encode(kind: str, pixels: np.ndarray = PIXELS, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert('CMYK').save(buffer, 'JPEG', progressive=True)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG that holds a whole JPEG in its APP1 segment, as cameras write them."""
    inner, outer = encode('JPEG', PIXELS[:8, :8]), encode('JPEG')
    return outer[:2] + b'\xff\xe1' + struct.pack('>H', len(inner) + 2) + inner + outer[2:]


FILES = {
    'jpeg': encode('JPEG'),
    'progressive': encode('JPEG', progressive=True),
    'restarts': encode('JPEG', restart_marker_blocks=1),
    'thumbnail': with_thumbnail(),
    'png': encode('PNG'),
}


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('after', [b'', b'\0' * 5000, b'\xff', b'more', b'\xff\xd8\xff' * 10, FILES['png']])
def test_bytes_after_the_end_are_nobodys_business(tmp_path, name, after):
    (tmp_path / 'image').write_bytes(FILES[name] + after)
    plain = Image.open(io.BytesIO(FILES[name])).convert('RGB')
    for read in (read_image, read_without_torch):
        found = read(str(tmp_path / 'image'))
        assert found.shape == (48, 64, 3) and np.abs(found[..., ::-1].astype(int) - np.asarray(plain)).mean() < 3


@pytest.mark.parametrize('name', FILES)
def test_an_image_without_its_end_is_refused_wherever_it_was_cut(tmp_path, name):
    content = FILES[name]
    for end in [*range(100, len(content), 97), len(content) - 1]:
        assert problem(content[:end]) == f'is truncated: it ends after {end} bytes, before the image does.', end
    (tmp_path / 'image').write_bytes(content[:-1])
    for read in (read_image, read_without_torch):
        with pytest.raises(UserError, match=r"image' is truncated: it ends after \d+ bytes"):
            read(str(tmp_path / 'image'))


def bomb(kind: str) -> bytes:
    if kind == 'jpeg':
        content = bytearray(FILES['jpeg'])
        start = content.index(b'\xff\xc0') + 5
        content[start : start + 4] = struct.pack('>HH', 30_000, 30_000)
        return bytes(content)
    header = b'IHDR' + struct.pack('>IIBBBBB', 30_000, 30_000, 8, 2, 0, 0, 0)
    rows = b'IDAT' + zlib.compress(b'\0' * 1000)
    chunks = (struct.pack('>I', len(body) - 4) + body + struct.pack('>I', zlib.crc32(body)) for body in (header, rows))
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks) + b'\0\0\0\0IEND\xaeB`\x82'


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
def test_an_image_that_says_it_is_huge_is_refused_before_it_is_decoded(tmp_path, kind):
    (tmp_path / 'bomb').write_bytes(bomb(kind))
    tracemalloc.start()
    message = (
        r"bomb'.* says that it is 30000x30000 pixels, and more than 178956970 are not decoded: it would take 2.5 GB"
    )
    with pytest.raises(UserError, match=message):
        LoadImage().transform(dict(img_path=str(tmp_path / 'bomb')))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def declaring(kind: str, side: int) -> bytes:
    """A small file whose header says that the image is side x side."""
    both = struct.pack('<II', side, side)
    if kind == 'bmp':
        content = bytearray(encode('BMP'))
        content[18:26] = struct.pack('<ii', side, -side)
    elif kind == 'gif':
        content = bytearray(encode('GIF'))
        content[6:10] = struct.pack('<HH', side, side)
    elif kind == 'webp':
        content = bytearray(encode('WEBP', lossless=True))
        content[21:25] = struct.pack('<I', (side - 1) | (side - 1) << 14)
    elif kind == 'webp canvas':
        canvas = (side - 1).to_bytes(3, 'little') * 2
        content = b'RIFF' + struct.pack('<I', 100) + b'WEBPVP8X' + struct.pack('<I', 10) + bytes(4) + canvas + bytes(80)
    elif kind in ('tiff', 'big tiff'):
        if kind == 'tiff':
            content = b'II*\0' + struct.pack('<IH', 8, 2)
            content += b''.join(struct.pack('<HHII', tag, 4, 1, side) for tag in (256, 257))
        else:
            content = b'MM\0+' + struct.pack('>HHQQ', 8, 0, 16, 2)
            content += b''.join(struct.pack('>HHQQ', tag, 16, 1, side) for tag in (256, 257))
    elif kind == 'tiff with two widths':
        content = declaring('tiff', side)[:10] + struct.pack('<HHII', 256, 3, 1, 9) + declaring('tiff', side)[10:]
        content = content[:8] + struct.pack('<H', 3) + content[10:]
    elif kind == 'tile':
        content = b'II*\0' + struct.pack('<IH', 8, 4)
        content += b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in ((256, 9), (257, 9)))
        content += b''.join(struct.pack('<HHII', tag, 4, 1, side) for tag in (322, 323))
    elif kind == 'jpeg 2000':
        content = b'\xff\x4f\xff\x51' + struct.pack('>HHIIII', 41, 0, side + 5, side, 5, 0) + bytes(60)
    elif kind == 'jp2':
        content = b'\0\0\0\x0cjP  \r\n\x87\n' + bytes(90) + declaring('jpeg 2000', 9) + declaring('jpeg 2000', side)
    elif kind == 'pnm':
        content = b'P6 # 3 4\n' + f'{side}\t#\n{side} 255\n'.encode() + both
    elif kind == 'second frame header':  # of which the decoder believes the first
        content, small = bomb('jpeg'), FILES['jpeg']
        start = small.index(b'\xff\xc0')
        frame = small[start : start + 2 + int.from_bytes(small[start + 2 : start + 4], 'big')]
        content = content[:-2] + frame + b'\xff\xd9\0'
    return bytes(content)


KINDS = (
    *('bmp', 'gif', 'webp', 'webp canvas', 'tiff', 'big tiff', 'tiff with two widths', 'tile', 'jpeg 2000', 'jp2'),
    *('pnm', 'second frame header'),
)


@pytest.mark.parametrize('kind', KINDS)
def test_a_file_of_any_format_that_says_it_is_huge_is_refused_before_it_is_decoded(tmp_path, monkeypatch, kind):
    side = {'webp': 16_000, 'second frame header': 30_000}.get(kind, 20_000)
    (tmp_path / 'bomb').write_bytes(declaring(kind, side))
    monkeypatch.setattr('cv2.imdecode', None)
    for read in (read_image, read_without_torch):
        with pytest.raises(UserError, match=f"bomb' says that it is {side}x{side} pixels, and more than 178956970"):
            read(str(tmp_path / 'bomb'))


EMPTY_SCAN = b'\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00'  # of the luminance's coefficients 1 to 63, all zero


def with_scans(number: int, side: int = 0, scan: bytes = EMPTY_SCAN, after: bytes = b'') -> bytes:
    """A progressive JPEG with so many scans, of the declared side if one is given."""
    content = bytearray(FILES['progressive'])
    if side:
        start = content.index(b'\xff\xc2') + 5
        content[start : start + 4] = struct.pack('>HH', side, side)
    return bytes(content[:-2]) + scan * (number - content.count(b'\xff\xda')) + b'\xff\xd9' + after


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (with_scans(101), '101 scans, and more than 100 of'),
        (with_scans(101, after=b'more'), '101 scans, and more than 100 of'),
        (with_scans(21, side=13_300), '21 scans, and more than 20 of'),
        (with_scans(50, side=9_000), '50 scans, and more than 44 of'),
        (with_scans(30_000, scan=b'\xff\xff\xff' + EMPTY_SCAN), '30000 scans, and more than 100 of'),
        (with_scans(101, scan=b'\xff\0\xff\xd0\xff\1junk' + EMPTY_SCAN), '101 scans, and more than 100 of'),
        (with_scans(101)[:-2], '101 scans, and more than 100 of'),
    ],
    ids=['many', 'bytes after the end', 'large', 'work', 'fill bytes', 'stuffing', 'no end'],
)
def test_a_jpeg_that_goes_over_its_pixels_too_often_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch, content, message
):
    """300 KB that decode for minutes: https://bugzilla.redhat.com/show_bug.cgi?id=1344214."""
    (tmp_path / 'bomb').write_bytes(content)
    monkeypatch.setattr('cv2.imdecode', None)
    for read in (read_image, read_without_torch):
        with pytest.raises(UserError, match=f"bomb' has {message} a JPEG of its size are not decoded"):
            read(str(tmp_path / 'bomb'))


def in_metadata(content: bytes) -> bytes:
    """Bytes that look like scans in a segment that is not decoded."""
    return content[:2] + b'\xff\xe2' + struct.pack('>H', 402) + b'\xff\xda' * 200 + content[2:]


@pytest.mark.parametrize(
    'content',
    [
        *(with_scans(100), with_scans(20) + EMPTY_SCAN * 200, in_metadata(FILES['jpeg']), in_metadata(with_scans(40))),
        in_metadata(FILES['jpeg']) + b'more',
        cmyk(),
    ],
    ids=['100', 'after the end', 'metadata', 'metadata and scans', 'metadata and bytes after the end', 'cmyk'],
)
def test_as_many_scans_as_an_encoder_writes_are_read(tmp_path, content):
    (tmp_path / 'image').write_bytes(content)
    assert [read(str(tmp_path / 'image')).shape for read in (read_image, read_without_torch)] == [(48, 64, 3)] * 2


ENCODED = {
    '.bmp': [],
    '.gif': [],
    '.webp': [cv2.IMWRITE_WEBP_QUALITY, 50],
    '.tiff': [],
    '.jp2': [],
    '.ppm': [],
    '.jpg': [],
    '.png': [],
}


@pytest.mark.parametrize('suffix', ENCODED)
def test_formats_that_opencv_writes_are_read_and_their_sizes_known(tmp_path, suffix):
    written, content = cv2.imencode(suffix, PIXELS, ENCODED[suffix])
    if not written:  # by this build of OpenCV
        pytest.skip(suffix)
    (tmp_path / 'image').write_bytes(content.tobytes())
    if suffix not in ('.jpg', '.png'):
        assert read_declared_size(content.tobytes()) == ((64, 48), True)
    for read in (read_image, read_without_torch):
        assert read(str(tmp_path / 'image')).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('BMP', {}),
        ('GIF', {}),
        ('WEBP', {}),
        ('WEBP', dict(lossless=True)),
        ('WEBP', dict(exif=b'Exif\0\0II*\0\x08\0\0\0\0\0')),
        ('TIFF', {}),
        ('TIFF', dict(compression='tiff_lzw')),
        ('TIFF', dict(big_tiff=True)),
        ('PPM', {}),
    ],
)
def test_formats_that_pillow_writes_are_read_and_their_sizes_known(tmp_path, kind, options):
    content = encode(kind, **options)
    assert read_declared_size(content) == ((64, 48), True)
    (tmp_path / 'image').write_bytes(content)
    assert read_image(str(tmp_path / 'image')).shape == (48, 64, 3)


@pytest.mark.parametrize('kind', KINDS[:-1])
def test_headers_cut_anywhere_are_one_line(kind):
    content = declaring(kind, 10_000)
    for end in range(30):
        found = problem(content[:end])
        assert found is None or found.endswith('.') and '\n' not in found, end


def test_formats_whose_size_is_not_known_before_decoding_are_refused():
    for content in (
        b'\0\0\0\x1cftypavif' + bytes(100),
        b'#?RADIANCE\n\n-Y 9 +X 9\n' + bytes(100),
        b'\x50\x35\x20\x9d\x01\x2a' + bytes(30),
        b'\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f' + bytes(30),
    ):
        assert 'is not an image' in problem(content)


@pytest.mark.parametrize(('width', 'height'), [(20_000, 1), (1, 20_000), (1002, 2)])
def test_an_image_of_which_resizing_leaves_nothing(tmp_path, width, height):
    (tmp_path / 'thin.png').write_bytes(encode('PNG', np.zeros((height, width, 3), np.uint8)))
    with pytest.raises(UserError, match=f"thin.png' is {width}x{height} pixels: nothing is left of its shorter side"):
        read_image(str(tmp_path / 'thin.png'))
    with pytest.raises(UserError, match=f'is {width}x{height} pixels'):
        read_image(np.zeros((height, width, 3), np.uint8))


@pytest.mark.parametrize('size', [(1, 1), (1, 400), (400, 1), (1000, 2)])
def test_thin_images_that_can_be_resized(size):
    assert problem(encode('PNG', np.zeros((size[1], size[0], 3), np.uint8))) is None


@pytest.mark.parametrize('position', range(40, 400, 30))
def test_damage_inside_of_a_png_is_refused(tmp_path, position):
    content = bytearray(FILES['png'])
    content[position] ^= 4
    (tmp_path / 'image.png').write_bytes(content)
    with pytest.raises(UserError, match='image.png'):
        read_image(str(tmp_path / 'image.png'))


def test_a_file_of_markers_takes_no_time():
    started = time.perf_counter()
    assert 'truncated' in problem(b'\xff\xd8' + b'\xff\x00' * 10**5)
    assert 'truncated' in problem(b'\xff\xd8' + b'\xff' * 10**5)
    assert time.perf_counter() - started < 5
