"""Drawing boxes with captions on an image, with PIL."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont


def colour_of(label: int) -> tuple[int, int, int]:
    """An RGB colour for a class: neighbouring labels get very different hues (golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb((0.97 + label * 0.61803) % 1.0, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib and covers more scripts than the fonts of OpenCV and Pillow."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'), size)


def draw_boxes(
    pixels: np.ndarray,
    boxes: np.ndarray,
    colours: Sequence[tuple[int, int, int]],
    captions: Sequence[str],
    scale: float | None = None,
) -> Image.Image:
    """Draw boxes on a copy of an image, the last one on top.

    Args:
        pixels: (height, width, 3) uint8, BGR.
        boxes: (n, 4), xyxy in pixels.
        colours: RGB of each.
        captions: text above each box; '' draws none.
        scale: of lines and text; derived from the image size if None.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    draw = ImageDraw.Draw(picture)
    height, width = pixels.shape[:2]
    scale = _scale_of(pixels) if scale is None else scale
    line, font = max(1, round(2.5 * scale)), _font(max(9, round(15 * scale)))
    for box, colour, caption in zip(boxes, colours, captions):
        x1, y1, x2, y2 = (float(side) for side in box)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
        if caption:
            _draw_caption(draw, (x1, y1), caption, font, colour, (width, height))
    return picture


def draw_names(
    pixels: np.ndarray,
    places: Sequence[tuple[int, int]],
    colours: Sequence[tuple[int, int, int]],
    names: Sequence[str],
) -> Image.Image:
    """Write names on a copy of an image, centred on their places.

    Args:
        pixels: (height, width, 3) uint8, BGR.
        places: (x, y) of each, in pixels.
        colours: RGB of each.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    draw, font = ImageDraw.Draw(picture), _font(max(9, round(15 * _scale_of(pixels))))
    for (x, y), colour, name in zip(places, colours, names):
        left, top, right, bottom = draw.textbbox((0, 0), name, font=font)
        corner = (x - (right - left) / 2, y + (bottom - top) / 2)
        _draw_caption(draw, corner, name, font, colour, picture.size)
    return picture


def _scale_of(pixels: np.ndarray) -> float:
    """Of lines and text, for an image (height, width, 3)."""
    return max(pixels.shape[:2]) / 900


def _draw_caption(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont,
    colour: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    """Draw above the corner, or below it if there is no space, and always inside the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = max(1, (bottom - top) // 6)
    wide, high = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0.0, min(corner[0], size[0] - wide))
    y = corner[1] - high if corner[1] >= high else min(corner[1], size[1] - high)
    draw.rectangle((x, y, x + wide, y + high), fill=colour)
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    draw.text((x + pad - left, y + pad - top), text, font=font, fill=(0, 0, 0) if light else (255, 255, 255))
