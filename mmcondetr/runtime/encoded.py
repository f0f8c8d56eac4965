"""Checks an encoded image before it is decoded: its size, and of a JPEG or PNG whether it is complete.

One policy for all image files: bytes after an image's end are ignored, as in every viewer; an image without its end is
refused, and so is one whose header declares more pixels than :data:`MOST_PIXELS`, or of a format whose size is not
known before it is decoded. A PNG damaged inside fails its checksums and is refused. A JPEG has no checksums: the
decoder's output for a damaged one is used.
"""

from __future__ import annotations

from mmcondetr.runtime.image_headers import Size, read_declared_size

MOST_PIXELS = 178_956_970
"""Pillow's limit, above which it treats a file as a decompression bomb; 0.5 GB in bytes."""
MOST_ASPECT = 500
"""Largest ratio of an image's sides: thinner ones vanish when resized."""

FORMATS = 'JPEG, PNG, BMP, GIF, WebP, TIFF, JPEG 2000, PNM'

_PNG = b'\x89PNG\r\n\x1a\n'
_NO_LENGTH = (0x00, 0x01, *range(0xD0, 0xD9))  # stuffing, and markers without a segment
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # SOF0 to SOF15


def problem(data: bytes) -> str | None:
    """The problem of an encoded image, as the end of a sentence that begins with its name; None if there is none.

    Whether formats other than JPEG and PNG are complete is left to their decoders.
    """
    if data[:3] == b'\xff\xd8\xff':
        size, whole = _walk_jpeg(data)
    elif data[:8] == _PNG:
        size, whole = _walk_png(data)
    else:
        (size, known), whole = read_declared_size(data), True
        if size is None:
            what = 'an image whose size can be read' if known else f'an image of a format that is read: {FORMATS}'
            return f'is not {what} ({len(data)} bytes, begins with {data[:8]!r}).'
    if size is not None and _count(size) > MOST_PIXELS:
        return (
            f'says that it is {size[0]}x{size[1]} pixels, and more than {MOST_PIXELS} are not decoded: it would take '
            f'{_count(size) * 3 / 2**30:.1f} GB. Make it smaller, or cut it into tiles.'
        )
    if not whole:
        return f'is truncated: it ends after {len(data)} bytes, before the image does.'
    return too_thin(size) if size is not None else None


def too_thin(size: Size) -> str | None:
    """The problem of an image of this (width, height), if one side is too much longer than the other."""
    if max(size) <= MOST_ASPECT * max(1, min(size)):
        return None
    return f'is {size[0]}x{size[1]} pixels: nothing is left of its shorter side when it is resized.'


def _count(size: Size) -> int:
    return size[0] * size[1]


def _walk_jpeg(data: bytes) -> tuple[Size | None, bool]:
    """(width, height), the largest of all frame headers, and whether the end of the image is present.

    Goes from marker to marker, because an embedded thumbnail has its own end. Decoders differ in which of several
    headers they believe.
    """
    size, position = None, 2
    while True:
        position = data.find(b'\xff', position)
        if position < 0 or position + 1 >= len(data):
            return size, False
        marker = data[position + 1]
        if marker == 0xD9:
            return size, True
        if marker == 0xFF:  # fill bytes
            position += 1
            continue
        if marker in _NO_LENGTH:
            position += 2
            continue
        if marker in _FRAMES and position + 9 <= len(data):
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            found = (int.from_bytes(width, 'big'), int.from_bytes(height, 'big'))
            size = found if size is None else max(size, found, key=_count)
        if marker == 0xDA and data.endswith(b'\xff\xd9'):  # pixels until the end, as in nearly every file
            return size, True
        position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')


def _walk_png(data: bytes) -> tuple[Size | None, bool]:
    size, position = None, len(_PNG)
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], 'big'), data[position + 4 : position + 8]
        if kind == b'IHDR':
            fields = data[position + 8 : position + 16]
            found = (int.from_bytes(fields[:4], 'big'), int.from_bytes(fields[4:], 'big'))
            size = found if size is None else max(size, found, key=_count)
        position += 12 + length
        if kind == b'IEND':
            return size, position <= len(data)
    return size, False
