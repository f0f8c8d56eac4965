"""Sizes that BMP, GIF, WebP, TIFF, JPEG 2000 and PNM files declare, from their headers alone.

OpenCV allocates an image as soon as it has read the header, and has no way to ask for the size before. Pillow has one,
but exported models run without it, and it would have to find the same size as OpenCV in every crafted file. Where a
header can be read in two ways, these functions therefore return the larger size, and where they find none the file is
not decoded.
"""

from __future__ import annotations

import re
import struct

Size = tuple[int, int]

_JP2 = b'\x00\x00\x00\x0cjP  \r\n\x87\n'
_CODESTREAM, _SIZ = b'\xff\x4f\xff\x51', struct.Struct('>HHIIII')  # length, capabilities, x, y, offset of x, of y
_BLANK = rb'(?:\s|[#%][^\n\r]*[\n\r])'  # PNM: blanks and comments, as OpenCV skips them
_PNM = re.compile(rb'P[1-6](?=\s)' + _BLANK + rb'+(\d{1,10})' + _BLANK + rb'+(\d{1,10})(?!\d)')
_INTEGERS = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # TIFF: BYTE, SHORT, LONG, LONG8
_WIDTHS, _HEIGHTS = (256, 322), (257, 323)  # TIFF: of the image, and of a tile


def read_declared_size(data: bytes) -> tuple[Size | None, bool]:
    """The size that an encoded image other than a JPEG or PNG declares.

    Returns:
        - (width, height) in pixels, the first image's of several; None if the header is incomplete or damaged;
        - whether the format is one that is read.
    """
    if data[:2] == b'BM':
        return _read_bmp(data), True
    if data[:6] in (b'GIF87a', b'GIF89a'):
        return (struct.unpack('<HH', data[6:10]) if len(data) >= 10 else None), True
    if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
        return _read_webp(data), True
    if data[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        return _read_tiff(data), True
    if data.startswith((_JP2, _CODESTREAM)):
        return _read_jpeg_2000(data), True
    if re.match(rb'P[1-6]\s', data):
        found = _PNM.match(data)
        return ((int(found[1]), int(found[2])) if found else None), True
    return None, False


def _read_bmp(data: bytes) -> Size | None:
    if len(data) < 26:
        return None
    if data[14:18] == b'\x0c\0\0\0':
        return struct.unpack('<HH', data[18:22])
    width, height = struct.unpack('<ii', data[18:26])
    return abs(width), abs(height)  # a negative height: from the top


def _read_webp(data: bytes) -> Size | None:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b'VP8X':  # the canvas; libwebp holds an image in it to the same size
        return 1 + int.from_bytes(body[4:7], 'little'), 1 + int.from_bytes(body[7:10], 'little')
    if kind == b'VP8L':
        bits = int.from_bytes(body[1:5], 'little')
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b'VP8 ':
        width, height = struct.unpack('<HH', body[6:10])
        return width & 0x3FFF, height & 0x3FFF  # the two highest bits are a scale that decoders ignore
    return None


def _read_jpeg_2000(data: bytes) -> Size | None:
    """The largest of all codestreams, wherever they are: its container need not be read as OpenJPEG does."""
    sizes, start = [], data.find(_CODESTREAM)
    while start >= 0:
        if start + 4 + _SIZ.size > len(data):
            return None
        _, _, x, y, offset_x, offset_y = _SIZ.unpack_from(data, start + 4)
        sizes.append((x - offset_x, y - offset_y))
        start = data.find(_CODESTREAM, start + 4)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _read_tiff(data: bytes) -> Size | None:
    """Of the first image, the only one that OpenCV decodes; of the image or its tiles, whichever is larger."""
    order = '<' if data[:2] == b'II' else '>'
    try:
        if 43 in data[2:4]:  # BigTIFF
            (start,) = struct.unpack_from(order + 'Q', data, 8)
            (count,) = struct.unpack_from(order + 'Q', data, start)
            start, step, value = start + 8, 20, 12
        else:
            (start,) = struct.unpack_from(order + 'I', data, 4)
            (count,) = struct.unpack_from(order + 'H', data, start)
            start, step, value = start + 2, 12, 8
        widths, heights = [], []
        for place in range(start, start + min(count, 65_536) * step, step):
            tag, kind = struct.unpack_from(order + 'HH', data, place)
            if tag in (*_WIDTHS, *_HEIGHTS):
                if kind not in _INTEGERS:
                    return None
                (side,) = struct.unpack_from(order + _INTEGERS[kind], data, place + value)
                (widths if tag in _WIDTHS else heights).append(side)
    except struct.error:  # an offset beyond the end
        return None
    return (max(widths), max(heights)) if widths and heights else None
