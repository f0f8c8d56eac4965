"""Attacks with annotations and images."""

from __future__ import annotations

import copy
import json
import random
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.torture.attempts import Attempt, Silent
from tools.torture.ground import Ground

WRONG = (None, True, -1, 0, 0.5, 10**30, float('nan'), float('inf'), '', '1', 'x', [], [1], [[1, 2]], {}, {'id': 1})
"""Values that replace valid ones."""


def places(data: Any, at: tuple = ()) -> list[tuple]:
    """The path of every value in nested lists and dicts."""
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at] * bool(at) + [place for key, value in children for place in places(value, (*at, key))]


def mutate(data: Any, choice: random.Random) -> tuple[Any, str]:
    """A copy with one error, and its description."""
    data = copy.deepcopy(data)
    place = choice.choice(places(data))
    parent = data
    for key in place[:-1]:
        parent = parent[key]
    name = '.'.join(map(str, place))
    how = choice.choice(('replace', 'replace', 'replace', 'remove', 'string'))
    if how == 'remove':
        del parent[place[-1]]
        return data, f'{name} removed'
    value = str(parent[place[-1]]) if how == 'string' else choice.choice(WRONG)
    parent[place[-1]] = value
    return data, f'{name} = {value!r}'


def _semantic(data: dict) -> Iterator[tuple[str, dict]]:
    """Files of valid JSON with the right types but wrong content."""
    for name in ('image_id', 'category_id'):
        changed = copy.deepcopy(data)
        for annotation in changed['annotations']:
            annotation[name] = str(annotation[name])
        yield f'every {name} as a string', changed
        changed = copy.deepcopy(data)
        changed['annotations'][0][name] = 10**6
        yield f'one {name} that is not there', changed
    changed = copy.deepcopy(data)
    for annotation in changed['annotations']:
        annotation['category_id'] -= 1
    yield 'category ids from 0', changed
    changed = copy.deepcopy(data)
    changed['images'].append(changed['images'][0])
    yield 'an image twice', changed
    changed = copy.deepcopy(data)
    changed['annotations'] = [dict(entry, id=1) for entry in changed['annotations']]
    yield 'every annotation with one id', changed
    changed = copy.deepcopy(data)
    for annotation in changed['annotations']:
        x, y, width, height = annotation['bbox']
        annotation['bbox'] = [x, y, -width, height]
    yield 'negative widths', changed


def _outlines(data: dict) -> Iterator[tuple[str, dict]]:
    """Files with outlines that no image has, or that are together too long, which are to fill in missing areas."""
    for name, outline in {
        'a corner at 1e9': [0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9],
        'a corner at -5e7': [-5e7, 0, 9, 0, 9, 9],
        'a corner of 400 digits': [0, 0, 10**400, 0, 9, 9],
        'a corner of NaN': [0, 0, float('nan'), 0, 9, 9],
        'a million times across': [0, 0, 500, 1] * 500_000,
    }.items():
        changed = copy.deepcopy(data)
        changed['annotations'][0].pop('area', None)
        changed['annotations'][0]['segmentation'] = [outline]
        yield f'an outline with {name}', changed
    across = [v for i in range(13) for v in (142_999 if i % 2 else -129_999, i)]
    merged = [[0, 6 * (i % 2000), 400, 6 * (i % 2000), 400, 6 * (i % 2000) + 2] for i in range(8000)]
    large = dict(data['images'][0], id=10**6, width=13_000, height=13_000, file_name='large.png')
    for name, outlines, count in (('a thousand outlines far across', [across], 1000), ('8000 polygons', merged, 1)):
        changed = copy.deepcopy(data)
        changed['images'].append(large)
        entry = {name: value for name, value in changed['annotations'][0].items() if name != 'area'}
        entry.update(image_id=10**6, segmentation=outlines)
        changed['annotations'] += [dict(entry, id=10**6 + i, bbox=[i, i, 9000 + i, 3000 + i]) for i in range(count)]
        yield name, changed


def _meaningless(data: dict) -> Iterator[tuple[str, dict]]:
    """Files of which nothing, or nothing right, would be learned."""

    def change_each(change: Callable[[dict], None]) -> dict:
        changed = copy.deepcopy(data)
        for annotation in changed['annotations']:
            change(annotation)
        return changed

    side = data['images'][0]['width']
    yield 'every annotation ignored', change_each(lambda entry: entry.update(ignore=1))
    yield 'every annotation a crowd', change_each(lambda entry: entry.update(iscrowd=1))
    for name, scale in {
        'widths and heights as fractions': (1, 1, 1 / side, 1 / side),
        'corners as fractions': (1 / side, 1 / side, 1, 1),
        'boxes of a millionth of a pixel': (1, 1, 1e-6, 1e-6),
    }.items():
        yield name, change_each(lambda entry, by=scale: entry.update(bbox=[a * b for a, b in zip(entry['bbox'], by)]))
    for part in ('images', 'annotations', 'categories'):
        changed = copy.deepcopy(data)
        changed[part][0]['id'] = 2**63
        yield f'an id of 64 bits in {part}', changed
    for name in ('\ud800', '\x1b[31m', 'cat\n'):
        changed = copy.deepcopy(data)
        changed['categories'][0]['name'] = name
        yield f'a class named {name!a}', changed


def _load(path: Path, training: bool) -> None:
    """Read a file as training or testing does; raises :class:`Silent` if annotations are lost without a warning."""
    from mmcondetr.datasets.coco import CocoDataset
    from mmcondetr.datasets.shapes import SHAPES_CLASSES
    from mmcondetr.engine.coco_metric import CocoMetric

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        dataset = CocoDataset(
            ann_file=str(path),
            data_prefix=dict(img=''),
            metainfo=dict(classes=SHAPES_CLASSES),
            test_mode=not training,
            check_images=False,
        )
        if not training:
            CocoMetric(str(path))
    found = sum(len(dataset.get_data_info(index)['instances']) for index in range(len(dataset)))
    # Parts that the reader does not decode may be invalid UTF-8.
    listed = json.loads(path.read_bytes().decode('utf-8-sig', errors='replace'))['annotations']
    expected = len([entry for entry in listed if not entry.get('ignore')])
    if found < expected and not warned:
        raise Silent(f'{expected - found} of {expected} annotations are unused, without a warning')
    print(f'{found} of {len(listed)} used; {len(warned)} warnings')


def annotations(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Mutated annotation files, read as for training and for testing."""
    data = json.loads((ground.folder / 'shapes/annotations/val.json').read_text())
    path = ground.new('annotations') / 'file.json'

    def attempt(name: str, content: bytes, training: bool = True, must_fail: bool = False) -> Attempt:
        def run() -> None:
            path.write_bytes(content)
            _load(path, training)

        return Attempt(name, run, must_fail, seconds=30)

    yield attempt('the good file', json.dumps(data).encode())
    for name, changed in _semantic(data):
        yield attempt(name, json.dumps(changed).encode())
    for name, changed in _outlines(data):
        yield attempt(name, json.dumps(changed).encode(), False, must_fail=True)
    for name, changed in _meaningless(data):
        yield attempt(name, json.dumps(changed).encode(), must_fail=True)
    content = json.dumps(data).encode()
    whole = {
        'empty': b'',
        'null': b'null',
        'a list': b'[]',
        'deep brackets': b'[' * 100_000,
        'deep objects': b'{"a":' * 100_000,
        'byte order mark': b'\xef\xbb\xbf' + content,
        'UTF-16': json.dumps(data).encode('utf-16'),
        'NaN': content.replace(b'"area": ', b'"area": NaN, "a": ', 1),
        'two documents': content + content,
        'latin1': content.replace(b'"file_name": "', b'"file_name": "\xe9', 1),
        'keys twice': content[:-1] + b', "annotations": []}',
    }
    for name, changed in whole.items():
        yield attempt(name, changed)
    while True:
        kind = choice.random()
        if kind < 0.75:
            changed, name = mutate(data, choice)
            yield attempt(name, json.dumps(changed).encode(), choice.random() < 0.5)
        elif kind < 0.85:
            end = choice.randrange(len(content))
            yield attempt(f'cut at byte {end}', content[:end])
        else:
            position, bit = choice.randrange(len(content)), 1 << choice.randrange(8)
            changed = bytearray(content)
            changed[position] ^= bit
            yield attempt(f'byte {position} ^ {bit}', bytes(changed))


def _png(width: int, height: int, rows: bytes = b'', color: int = 2, depth: int = 8) -> bytes:
    """A PNG of any declared size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    header = struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, 0)
    body = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + body


def _encoded(kind: str, array: np.ndarray, **options: Any) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    mode = options.pop('mode', None)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def _many_scans(number: int, side: int, picture: np.ndarray) -> bytes:
    """A progressive JPEG with so many empty scans, each of which goes over side x side pixels."""
    jpeg = bytearray(_encoded('JPEG', picture, progressive=True))
    start = jpeg.index(b'\xff\xc2') + 5
    jpeg[start : start + 4] = struct.pack('>HH', side, side)
    return bytes(jpeg[:-2]) + b'\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00' * number + b'\xff\xd9'


def _declaring(side: int, jpeg: bytes) -> Iterator[tuple[str, bytes]]:
    """Small files of several formats whose headers say side x side pixels."""
    start = jpeg.index(b'\xff\xc0')
    frame = jpeg[start : start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], 'big')]
    large = frame[:5] + struct.pack('>HH', side, side) + frame[9:]
    yield 'JPEG', jpeg.replace(frame, large)
    yield 'JPEG with a second frame header', jpeg.replace(frame, large)[:-2] + frame + b'\xff\xd9\0'
    yield 'BMP', b'BM' + struct.pack('<IHHIIiiHHIIiiII', 154, 0, 0, 54, 40, side, side, 1, 24, *(0,) * 6) + bytes(100)
    yield 'GIF', b'GIF89a' + struct.pack('<HH', side, side) + bytes(100)
    canvas = (side - 1).to_bytes(3, 'little') * 2
    yield 'WebP', b'RIFF' + struct.pack('<I', 100) + b'WEBPVP8X' + struct.pack('<I', 10) + bytes(4) + canvas + bytes(80)
    yield 'PNM', b'P5\n%d %d\n255\n' % (side, side) + bytes(100)
    header = struct.pack('>HHIIIIIIIIHBBB', 41, 0, side, side, 0, 0, side, side, 0, 0, 1, 7, 1, 1)
    yield 'JPEG 2000', b'\xff\x4f\xff\x51' + header + bytes(100)
    yield 'TIFF', _encoded('TIFF', np.zeros((side, side), bool), compression='group4')


def _image_files(choice: random.Random) -> Iterator[tuple[str, bytes, bool | bytes]]:
    """Name, content, and whether it must be refused; or the undamaged file, whose pixels any result must have."""
    picture = np.random.default_rng(choice.randrange(2**32)).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    jpeg, png = _encoded('JPEG', picture), _encoded('PNG', picture)
    for mode in ('L', 'P', 'RGBA', '1', 'I;16', 'LA'):
        try:
            yield f'PNG in mode {mode}', _encoded('PNG', picture, mode=mode), False
        except (ValueError, OSError):
            continue
    yield 'JPEG in CMYK', _encoded('JPEG', picture, mode='CMYK'), False
    for kind in ('GIF', 'BMP', 'TIFF', 'WEBP'):
        yield kind, _encoded(kind, picture), False
    yield 'JPEG with bytes after it', jpeg + b'\0' * 100, False
    yield 'PNG with bytes after it', png + b'more', False
    for width, height in ((1, 1), (1, 48), (64, 1), (20_000, 1), (1, 20_000)):
        yield f'{width} x {height}', _encoded('PNG', np.zeros((height, width, 3), np.uint8)), False
    for kind, content in _declaring(20_000, jpeg):
        yield f'a {kind} that says 20000 x 20000', content, True
    for number, side in ((90, 5_000), (8, 13_000)):
        yield f'a JPEG with {number} scans of {side} x {side}', _many_scans(number, side, picture), False
    for number, side in ((30_000, 13_000), (90, 13_000), (300, 500)):
        yield f'a JPEG with {number} scans of {side} x {side}', _many_scans(number, side, picture), True
    yield 'HDR, whose size is known only to its decoder', b'#?RADIANCE\n\n-Y 9000 +X 9000\n' + bytes(100), True
    yield 'WebP without its container', b'\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f' + bytes(100), True
    yield 'a PNG that says 30000 x 30000', _png(30_000, 30_000), True
    yield 'a PNG that says 0 x 0', _png(0, 0), True
    yield 'a PNG of 12000 x 12000', _png(12_000, 12_000, b'\0' * (12_000 * 36_001)), False
    yield 'empty', b'', True
    yield 'text', b'no image', True
    yield 'HTML', b'<html><body>404</body></html>', True
    yield 'a PNG without pixels', _png(64, 48), True
    while True:
        kind, content = choice.choice((('JPEG', jpeg), ('PNG', png)))
        if choice.random() < 0.5:
            end = choice.randrange(len(content))
            yield f'{kind} cut at byte {end} of {len(content)}', content[:end], True
        else:
            position, bit = choice.randrange(len(content)), 1 << choice.randrange(8)
            changed = bytearray(content)
            changed[position] ^= bit
            # A JPEG has no checksums: the effect of a flipped bit cannot be told from the picture.
            yield f'{kind}, byte {position} ^ {bit}', bytes(changed), content if kind == 'PNG' else False


def images(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Image files of all kinds through the steps of training: pixels and boxes of the declared size, or an error."""
    folder = ground.new('images')

    def attempt(name: str, content: bytes, expected: bool | bytes) -> Attempt:
        path = folder / 'image.bin'

        def run() -> None:
            from mmcv.transforms import Compose

            import mmcondetr.datasets  # noqa: F401
            from mmcondetr.registry import TRANSFORMS

            path.write_bytes(content)
            steps = [TRANSFORMS.build(dict(type='mmcondetr.LoadImage'))]
            steps.append(TRANSFORMS.build(dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=True)))
            image = Compose(steps)(dict(img_path=str(path), img_id=1))['img']
            if isinstance(expected, bytes):
                path.write_bytes(expected)
                if not np.array_equal(image, Compose(steps)(dict(img_path=str(path), img_id=1))['img']):
                    raise Silent('other pixels than those of the undamaged file')
            if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1 or image.dtype != np.uint8:
                raise Silent(f'an image of shape {image.shape} and type {image.dtype}')
            print(image.shape)

        return Attempt(name, run, expected is True, seconds=30, megabytes=3000)

    for name, content, expected in _image_files(choice):
        yield attempt(name, content, expected)
