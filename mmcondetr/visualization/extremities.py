"""Do heads attend to the extremities of boxes? Where attention mass is relative to the box, over a data set.

The image is divided relative to the predicted box. With u = (x - cx) / (w / 2) and v = (y - cy) / (h / 2), so that the
box's edges lie at -1 and 1, and m = max(abs(u), abs(v)):

=======  ==========================================================================================
inside   m < 1 - BAND
left     1 - BAND <= m <= 1 + BAND, abs(u) >= abs(v), u < 0: the band around the left edge, half of it
         inside the box, bounded by the diagonals
right    the same with u > 0
top      1 - BAND <= m <= 1 + BAND, abs(v) > abs(u), v < 0
bottom   the same with v > 0
outside  m > 1 + BAND
=======  ==========================================================================================

The six regions partition the image, so a map's shares sum to one. A token's weight is spread evenly over the part of
its cell that is inside the image. Chance is the share of a uniform map, which is the region's share of the image area.
A region's lift is share / chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from mmcondetr.errors import UserError
from mmcondetr.visualization.attend import record_item
from mmcondetr.visualization.image_attention import ImageAttention
from mmcondetr.visualization.maps import KINDS, TokenGrid

REGIONS = ('left', 'right', 'top', 'bottom', 'inside', 'outside')
EDGES = slice(0, 4)
BAND = 0.3  # half-widths of a band, as a fraction of half the box
POINTS = 8  # a cell is sampled at POINTS x POINTS points


class ExtremityTable(NamedTuple):
    """Shares of the maps' mass, averaged over detections.

    Attributes:
        layer: the decoder layer.
        kind: 'spatial', 'content' or 'combined'.
        shares: (H, 6), by head and region; rows sum to one.
        errors: (H, 6), standard errors of the shares.
        chance: (6, ), the regions' shares of the image's area, averaged over the same detections.
        detections: number of detections measured.
        skipped: number of detections too small for the tokens to resolve their edges.
        images: number of images.
    """

    layer: int
    kind: str
    shares: np.ndarray
    errors: np.ndarray
    chance: np.ndarray
    detections: int
    skipped: int
    images: int

    @property
    def lift(self) -> np.ndarray:
        """(H, 6): shares relative to chance."""
        return self.shares / self.chance

    def favourite(self, head: int) -> str:
        """The region that a head prefers most, relative to chance."""
        return REGIONS[int(self.lift[head].argmax())]


def cell_points(size: int, cell: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: POINTS points in each cell's part of the image (count, POINTS), and the lengths of the parts."""
    start = np.minimum(np.arange(count) * cell, size)
    end = np.minimum(start + cell, size)
    where = start[:, None] + (end - start)[:, None] * (np.arange(POINTS) + 0.5) / POINTS
    return where, end - start


def region_shares(box: Sequence[float], grid: TokenGrid) -> tuple[np.ndarray, np.ndarray]:
    """How the cells of the token grid are divided among the regions of one box.

    Args:
        box: (x1, y1, x2, y2) in pixels of the original image.
        grid: location of the image's tokens.

    Returns:
        - the share of each cell in each region (6, h, w), which sums to one over the regions;
        - the regions' shares of the image's area (6, ).
    """
    x1, y1, x2, y2 = box
    y, heights = cell_points(grid.ori_shape[0], grid.cell[0], grid.valid[0])
    x, widths = cell_points(grid.ori_shape[1], grid.cell[1], grid.valid[1])
    u = ((x - (x1 + x2) / 2) / max((x2 - x1) / 2, 1e-6))[None, :, None, :]
    v = ((y - (y1 + y2) / 2) / max((y2 - y1) / 2, 1e-6))[:, None, :, None]  # with u: (h, w, POINTS, POINTS)
    distance = np.maximum(abs(u), abs(v))
    band = (distance >= 1 - BAND) & (distance <= 1 + BAND)
    sideways = abs(u) >= abs(v)
    members = (
        band & sideways & (u < 0),
        band & sideways & (u >= 0),
        band & ~sideways & (v < 0),
        band & ~sideways & (v >= 0),
        distance < 1 - BAND,
        distance > 1 + BAND,
    )
    shares = np.stack([member.mean(axis=(2, 3)) for member in members])
    area = heights[:, None] * widths[None]
    return shares, (shares * area).sum(axis=(1, 2)) / area.sum()


def measure_image(
    attention: ImageAttention, queries: Sequence[int], layer: int, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Shares (Q, H, 6) of the maps' mass, and chance (Q, 6), relative to the last layer's boxes."""
    maps = getattr(attention.maps(layer, queries), kind).cpu().numpy()
    divided = [region_shares(attention.boxes[-1, query].tolist(), attention.grid) for query in queries]
    shares = np.stack([np.einsum('hyx,ryx->hr', weights, cells) for weights, (cells, _) in zip(maps, divided)])
    return shares, np.stack([areas for _, areas in divided])


def measure_extremities(
    model: nn.Module,
    dataset: torch.utils.data.Dataset,
    layer: int = -1,
    kind: str = 'spatial',
    score_threshold: float = 0.5,
    limit: int | None = None,
    min_cells: float = 2.0,
) -> ExtremityTable:
    """Measure all detections of a data set.

    Args:
        model: a detector that :func:`~mmcondetr.visualization.record_attention` supports.
        dataset: an mmdet data set with a test pipeline.
        layer: decoder layer, negative from the end.
        kind: 'spatial', 'content' or 'combined'.
        score_threshold: minimum score of a query's best class.
        limit: maximum number of images; all if None.
        min_cells: minimum length of a box's shorter side, in tokens.

    Raises:
        UserError: ``kind`` is unknown, there is nothing to measure, or the model is not supported.
    """
    if kind not in KINDS:
        raise UserError(f"There is no attention map '{kind}': it can be {', '.join(KINDS)}.")
    images = len(dataset) if limit is None else min(limit, len(dataset))
    shares, chance, skipped, index = [], [], 0, layer
    for number in range(images):
        attention = record_item(model, dataset[number], [layer])
        index = attention.layers[0]
        boxes = attention.boxes[-1]
        confident = attention.scores[-1].max(dim=-1).values >= score_threshold
        cells = (boxes[:, 2:] - boxes[:, :2]) / boxes.new_tensor(attention.grid.cell[::-1])
        large = cells.amin(dim=-1) >= min_cells
        skipped += int((confident & ~large).sum())
        queries = (confident & large).nonzero()[:, 0].tolist()
        if queries:
            found = measure_image(attention, queries, layer, kind)
            shares.append(found[0])
            chance.append(found[1])
    if not shares:
        raise UserError(
            f'Nothing to measure in {images} images: no detection scores {score_threshold:g} or more with '
            f'a box of at least {min_cells:g} x {min_cells:g} tokens ({skipped} were smaller).'
        )
    table = np.concatenate(shares)
    errors = table.std(axis=0) / max(len(table) - 1, 1) ** 0.5
    return ExtremityTable(
        index, kind, table.mean(axis=0), errors, np.concatenate(chance).mean(axis=0), len(table), skipped, images
    )
