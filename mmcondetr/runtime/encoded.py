"""Checks an encoded image before it is decoded: its size, and of a JPEG or PNG whether it is complete.

One policy for all image files: bytes after an image's end are ignored, as in every viewer; an image without its end is
refused, and so is one whose header declares more pixels than :data:`MOST_PIXELS`, a JPEG that goes over them too often
(:data:`MOST_SCANS`), or one of a format whose size is not known before it is decoded. A PNG damaged inside fails its
checksums and is refused. A JPEG has no checksums: the decoder's output for a damaged one is used.
"""

from __future__ import annotations

import re

from mmcondetr.runtime.image_headers import Size, read_declared_size

MOST_PIXELS = 178_956_970
"""Pillow's limit, above which it treats a file as a decompression bomb; 0.5 GB in bytes.

While a progressive JPEG is decoded, its coefficients take two bytes for each pixel and component as well: up to 1.6 GB
for colours. A file of a few hundred bytes can ask for that.
"""
MOST_SCANS = 100
"""Scans of a JPEG, as in libtiff: each goes over all pixels and can be of ten bytes. libjpeg writes 1, or 6 to 18."""
MOST_SCANNED = 20 * MOST_PIXELS
"""Pixels of a JPEG times its scans: about 7 s at the slowest (an arithmetic code); 20 scans of the largest image."""
MOST_ASPECT = 500
"""Largest ratio of an image's sides: thinner ones vanish when resized."""

FORMATS = 'JPEG, PNG, BMP, GIF, WebP, TIFF, JPEG 2000, PNM'

_FEW_SCANS = MOST_SCANNED // MOST_PIXELS  # allowed for any size

_PNG = b'\x89PNG\r\n\x1a\n'
_MARKER = re.compile(rb'\xff[^\x00\x01\xd0-\xd8\xff]')  # without stuffing, fill bytes and markers without a segment
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # SOF0 to SOF15


def problem(data: bytes) -> str | None:
    """The problem of an encoded image, as the end of a sentence that begins with its name; None if there is none.

    Whether formats other than JPEG and PNG are complete is left to their decoders.
    """
    scans = 1
    if data[:3] == b'\xff\xd8\xff':
        size, whole, scans = _walk_jpeg(data)
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
    most = MOST_SCANS if size is None else min(MOST_SCANS, MOST_SCANNED // max(1, _count(size)))
    if scans > most:
        return f'has {scans} scans, and more than {most} of a JPEG of its size are not decoded. Save it again.'
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


def _walk_jpeg(data: bytes) -> tuple[Size | None, bool, int]:
    """(width, height), the largest of all frame headers; whether the end of the image is present; the number of scans.

    Goes from marker to marker as libjpeg does, because an embedded thumbnail has its own end and scans. Decoders differ
    in which of several headers they believe. Where there cannot be too many scans, only the first is counted.
    """
    ended, few = data.endswith(b'\xff\xd9'), data.count(b'\xff\xda') <= _FEW_SCANS
    size, scans, position = None, 0, 2
    while at := _MARKER.search(data, position):
        position, marker = at.start(), data[at.start() + 1]
        if marker == 0xD9:
            return size, True, scans
        if marker in _FRAMES and position + 9 <= len(data):
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            found = (int.from_bytes(width, 'big'), int.from_bytes(height, 'big'))
            size = found if size is None else max(size, found, key=_count)
        scans += marker == 0xDA
        if scans and ended and few:  # pixels until the end, as in nearly every file
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
    return size, ended and scans > 0, scans


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
