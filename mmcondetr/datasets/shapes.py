"""Draws the 'shapes' data set: coloured shapes over textured backgrounds, as COCO JSON and PNG.

An image depends on (seed, split, index), the image size and the form only, so a larger set begins with the images of a
smaller one. Boxes and masks cover the visible part of a shape, which may be clipped at the border or hidden by later
shapes. The panoptic form has annotated backgrounds of several kinds: see shapes_panoptic.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmcondetr.datasets.panoptic_png import write_panoptic_png
from mmcondetr.datasets.segmentation import encode_mask
from mmcondetr.datasets.shapes_panoptic import STUFF_CLASSES, StuffPainter, describe_segments
from mmcondetr.errors import UserError
from mmcondetr.writing import replacing_folder

SHAPES_CLASSES = ('circle', 'triangle', 'square', 'star', 'cross', 'ring')
SHAPES_PALETTE = ((220, 20, 60), (0, 160, 80), (30, 90, 230), (250, 170, 30), (150, 60, 200), (0, 170, 190))
VERSION = 2  # of the drawing code; images of another version are redrawn
MARKER = 'shapes.json'  # written last and renamed with the folder, so a folder that has it is complete

_SPLITS = ('train', 'val')
_MAX_OBJECTS = 6
_SIDE = (0.10, 0.50)  # a shape's diameter as a fraction of the image's side, log-uniform between these
_MIN_VISIBLE = 0.4  # minimum visible fraction of a shape's full area
_MIN_CONTRAST = 70.0  # minimum distance in BGR (0-255) between a shape's colour and the mean of its background
_SUBPIXEL_BITS = 4


class DrawnImage(NamedTuple):
    """One drawn image and what is in it.

    Attributes:
        pixels: (size, size, 3) uint8, BGR as in OpenCV.
        boxes: (n, 4) xywh in pixels, tight on the visible part.
        labels: (n,) indices into :data:`SHAPES_CLASSES`.
        areas: (n,) visible pixels.
        owner: (size, size) the topmost shape at each pixel, -1 for the background.
        stuff: (size, size) indices into :data:`~mmcondetr.datasets.shapes_panoptic.STUFF_CLASSES` of the background,
            also behind shapes; None in the plain form.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    owner: np.ndarray
    stuff: np.ndarray | None


def _star(points: int, inner: float) -> np.ndarray:
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1) * radii[:, None]


def _cross(width: float) -> np.ndarray:
    quarter = np.array([[width, -1.0], [width, -width], [1.0, -width]])
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in np.arange(4) * np.pi / 2]
    return np.concatenate([quarter @ turn.T for turn in turns])


# Outlines with radius about 1 around the origin; circle and ring are drawn by OpenCV's circle.
_OUTLINES = {
    'triangle': _star(3, 0.5),  # inner radius 0.5 lies on the edges of an equilateral triangle
    'square': np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * 0.8,
    'star': _star(5, 0.42),
    'cross': _cross(0.33),
}


def _draw_mask(name: str, center: np.ndarray, radius: float, angle: float, canvas: int) -> np.ndarray:
    """Anti-aliased coverage (canvas, canvas) uint8 of one shape."""
    mask = np.zeros((canvas, canvas), np.uint8)
    scale = 1 << _SUBPIXEL_BITS
    if name in _OUTLINES:
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = (_OUTLINES[name] @ turn.T) * radius + center
        cv2.fillPoly(mask, [np.round(points * scale).astype(np.int32)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return mask
    middle = tuple(int(v) for v in np.round(center * scale))
    cv2.circle(mask, middle, int(round(radius * scale)), 255, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    if name == 'ring':
        cv2.circle(mask, middle, int(round(0.55 * radius * scale)), 0, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return mask


def _texture(rng: np.random.Generator, size: int, color: np.ndarray, blotches: float, grain: float) -> np.ndarray:
    """A (size, size, 3) float32 texture around one colour: smooth blotches, sometimes stripes, and grain."""
    cells = int(rng.integers(3, 9))
    coarse = rng.normal(0.0, blotches, (cells, cells, 3)).astype(np.float32)
    texture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) + color.astype(np.float32)
    if rng.random() < 0.4:
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 20)
        ramp = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi / period)
        phase = ramp[None, :] * np.float32(np.cos(angle)) + ramp[:, None] * np.float32(np.sin(angle))
        texture += np.float32(blotches) * np.sin(phase)[..., None]
    texture += rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(grain)
    return texture


def _contrasting_color(rng: np.random.Generator, under: np.ndarray) -> np.ndarray:
    color = rng.uniform(0, 255, 3)
    for _ in range(20):
        if np.linalg.norm(color - under) >= _MIN_CONTRAST:
            break
        color = rng.uniform(0, 255, 3)
    return color


def _place(rng: np.random.Generator, owner: np.ndarray, full_areas: list[int], size: int):
    """Place one more shape without hiding too much of any other: (label, coverage) or None.

    Args:
        owner: (size, size) int, the topmost shape at each pixel, -1 for the background.
        full_areas: each placed shape's area in pixels before clipping and hiding.
    """
    label = int(rng.integers(len(SHAPES_CLASSES)))
    radius = 0.5 * size * float(np.exp(rng.uniform(*np.log(_SIDE))))
    margin = int(np.ceil(radius)) + 2  # canvas around the image: the full area includes what the border cuts off
    for _ in range(8):
        center = rng.uniform(0.25 * radius, size - 0.25 * radius, 2)
        angle = rng.uniform(0, 2 * np.pi)
        canvas = _draw_mask(SHAPES_CLASSES[label], center + margin, radius, angle, size + 2 * margin)
        coverage = canvas[margin : margin + size, margin : margin + size]
        inside, full_area = coverage > 127, int(np.count_nonzero(canvas > 127))
        if np.count_nonzero(inside) < _MIN_VISIBLE * full_area:
            continue
        left = np.bincount(owner[~inside] + 1, minlength=len(full_areas) + 1)[1:]
        if all(visible >= _MIN_VISIBLE * area for visible, area in zip(left, full_areas)):
            full_areas.append(full_area)
            return label, coverage
    return None


def draw_image(rng: np.random.Generator, size: int, panoptic: bool = False) -> DrawnImage:
    """Draw one image of size x size pixels with 1 to 6 shapes, over one texture or over several kinds of background."""
    stuff = None
    if panoptic:
        pixels, stuff = StuffPainter(_texture).paint(rng, size)
    else:
        pixels = _texture(rng, size, rng.uniform(30, 225, 3), blotches=22.0, grain=rng.uniform(2, 12))
    owner = np.full((size, size), -1, np.int64)
    full_areas: list[int] = []
    labels: list[int] = []
    for _ in range(int(rng.integers(1, _MAX_OBJECTS + 1))):
        placed = _place(rng, owner, full_areas, size)
        if placed is None:
            continue
        label, coverage = placed
        inside = coverage > 127
        color = _contrasting_color(rng, pixels[inside].mean(axis=0))
        alpha = coverage[..., None].astype(np.float32) / 255
        pixels = pixels * (1 - alpha) + _texture(rng, size, color, blotches=9.0, grain=rng.uniform(0, 8)) * alpha
        owner[inside] = len(labels)
        labels.append(label)
    boxes, areas = [], []
    for index in range(len(labels)):
        rows, columns = np.nonzero(owner == index)
        boxes.append((columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1))
        areas.append(len(rows))
    return DrawnImage(
        np.clip(pixels, 0, 255).astype(np.uint8),
        np.array(boxes, np.int64).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(areas, np.int64),
        owner,
        stuff,
    )


def _write_split(root: Path, split: str, number: int, image_size: int, seed: int, panoptic: bool) -> None:
    folder = root / split
    folder.mkdir()
    images, annotations, panoptic_annotations = [], [], []
    for index in range(number):
        drawn = draw_image(np.random.default_rng([seed, _SPLITS.index(split), index]), image_size, panoptic)
        name = f'{index:06d}.png'
        if not cv2.imwrite(str(folder / name), drawn.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise UserError(f'Could not write the image {folder / name} of the shapes data set.')
        images.append(dict(id=index + 1, file_name=name, width=image_size, height=image_size))
        shapes = zip(drawn.boxes.tolist(), drawn.labels.tolist(), drawn.areas.tolist())
        for shape, (box, label, area) in enumerate(shapes):
            where = dict(bbox=box, area=area, iscrowd=0, segmentation=encode_mask(drawn.owner == shape))
            annotations.append(dict(id=len(annotations) + 1, image_id=index + 1, category_id=label + 1, **where))
        if panoptic:
            segment_ids, segments = describe_segments(drawn.owner, drawn.labels, drawn.stuff, len(SHAPES_CLASSES))
            write_panoptic_png(root / f'panoptic_{split}' / name, segment_ids)
            panoptic_annotations.append(dict(image_id=index + 1, file_name=name, segments_info=segments))
    categories = [dict(id=label + 1, name=name) for label, name in enumerate(SHAPES_CLASSES)]
    target = root / 'annotations'
    target.mkdir(exist_ok=True)
    content = dict(images=images, annotations=annotations, categories=categories)
    (target / f'{split}.json').write_text(json.dumps(content))
    if panoptic:
        kinds = [dict(id=len(categories) + 1 + label, name=name) for label, name in enumerate(STUFF_CLASSES)]
        both = [dict(category, isthing=1) for category in categories] + [dict(kind, isthing=0) for kind in kinds]
        content = dict(images=images, annotations=panoptic_annotations, categories=both)
        (target / f'panoptic_{split}.json').write_text(json.dumps(content))


def read_marker(root: str | os.PathLike) -> dict | None:
    """The arguments of :func:`generate_shapes` and the version that ``root`` was drawn with; None if unknown."""
    try:
        return json.loads((Path(root) / MARKER).read_text())
    except (OSError, ValueError):
        return None


def generate_shapes(
    root: str | os.PathLike,
    num_train: int = 2000,
    num_val: int = 200,
    image_size: int = 128,
    seed: int = 0,
    panoptic: bool = False,
) -> bool:
    """Write the data set to root/{train,val}/*.png and root/annotations/{train,val}.json, with masks.

    The panoptic form has other images, and root/panoptic_{train,val}/*.png and
    root/annotations/panoptic_{train,val}.json beside them, in COCO's panoptic format.

    The set is written to a folder beside ``root`` and renamed, so that ``root`` is complete or absent. A complete set
    with the same parameters is kept.

    Returns:
        Whether anything was drawn.

    Raises:
        UserError: A number is out of range, or ``root`` holds files that this function did not write.
    """
    parameters = dict(num_train=num_train, num_val=num_val, image_size=image_size, seed=seed)
    for name, least in (('num_train', 1), ('num_val', 1), ('image_size', 32), ('seed', 0)):
        if parameters[name] < least:
            raise UserError(f'Shapes data set: {name}={parameters[name]} is too small, the minimum is {least}.')
    root = Path(os.path.abspath(root))
    marker = dict(parameters, panoptic=panoptic, version=VERSION)
    if read_marker(root) == marker:
        return False
    if root.exists() and read_marker(root) is None and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f'{root} is not empty and holds no {MARKER}, so it is not a shapes data set: name another folder, '
            f'or remove this one.'
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing_folder(root) as new:
            _write_split(new, 'train', num_train, image_size, seed, panoptic)
            _write_split(new, 'val', num_val, image_size, seed, panoptic)
            (new / MARKER).write_text(json.dumps(marker))
    except OSError:  # another process drawing the same set may have finished first
        if read_marker(root) != marker:
            raise
    return True
