"""The panoptic form of the shapes: backgrounds of two or three kinds of stuff, and segments of things and stuff."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmcondetr.datasets.panoptic_png import describe_segment

STUFF_CLASSES = ('sky', 'grass', 'sand')
STUFF_PALETTE = ((150, 200, 250), (120, 190, 90), (225, 205, 150))
_COLORS = np.array([[215.0, 160.0, 95.0], [60.0, 140.0, 70.0], [120.0, 180.0, 205.0]])  # mean BGR colours
_SPREAD = 22.0  # deviation of a region's colour from its kind's
_MIN_PART = 0.15  # minimum share of the image for a region before shapes cover it; otherwise its border is redrawn


class StuffPainter:
    """Paints backgrounds of two or three kinds side by side, with wavy borders.

    Args:
        texture: (rng, size, colour (3,), blotches, grain) -> (size, size, 3) float32.
    """

    def __init__(self, texture: Callable[..., np.ndarray]) -> None:
        self.texture = texture

    def paint(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """One background: pixels (size, size, 3) float32 BGR, and the kind of each pixel (size, size)."""
        kinds = rng.permutation(len(STUFF_CLASSES))[: int(rng.integers(2, len(STUFF_CLASSES) + 1))]
        stuff = kinds[_divide(rng, size, len(kinds))]
        pixels = np.zeros((size, size, 3), np.float32)
        for kind in kinds.tolist():
            color = np.clip(_COLORS[kind] + rng.uniform(-_SPREAD, _SPREAD, 3), 20, 235)
            texture = self.texture(rng, size, color, blotches=10.0, grain=rng.uniform(2, 8))
            pixels = np.where((stuff == kind)[..., None], texture, pixels)
        return pixels, stuff


def _divide(rng: np.random.Generator, size: int, number: int) -> np.ndarray:
    """Cut the image into ``number`` regions, 0 to number - 1 along a random direction: (size, size) int."""
    rows, columns = np.mgrid[0:size, 0:size] / size - 0.5
    while True:
        angle = rng.uniform(0, 2 * np.pi)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        across = rows * np.cos(angle) - columns * np.sin(angle)
        waves = rng.uniform(0.02, 0.08) * np.sin(across * rng.uniform(4, 14) + rng.uniform(0, 2 * np.pi))
        borders = np.sort(rng.uniform(-0.35, 0.35, number - 1))
        region = np.digitize(along + waves, borders)
        if np.bincount(region.ravel(), minlength=number).min() >= _MIN_PART * size * size:
            return region


def describe_segments(
    owner: np.ndarray, labels: np.ndarray, stuff: np.ndarray, num_things: int
) -> tuple[np.ndarray, list[dict]]:
    """The segments of one image in COCO's panoptic format: each shape, and each kind of stuff once.

    Args:
        owner: (size, size) the shape at each pixel, -1 for the background.
        labels: (n,) of the shapes.
        stuff: (size, size) the kind at each pixel, including behind shapes.
        num_things: number of shape classes; categories count from 1, shapes before stuff.

    Returns:
        - segment ids (size, size);
        - ``segments_info``: id, category_id, area, bbox (x, y, width, height in pixels) and iscrowd of each.
    """
    categories = [int(label) + 1 for label in labels]
    index = owner.copy()
    for kind in np.unique(stuff[owner < 0]).tolist():
        index[(owner < 0) & (stuff == kind)] = len(categories)
        categories.append(num_things + 1 + kind)
    segments = [describe_segment(number, category, index == number) for number, category in enumerate(categories)]
    return np.array([segment['id'] for segment in segments])[index], segments
