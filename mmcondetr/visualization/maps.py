"""Computing attention maps from the parts of attention logits: softmax, removing padding, resizing.

Location of a map on the image: the padded input of (height, width) pixels is divided evenly into the h x w cells of the
token grid, a token's weight is assigned to its whole cell, and the original image covers the upper left ``img_shape``
of the input. The detectors assign the padding mask to tokens by the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcondetr.errors import UserError

KINDS = ('spatial', 'content', 'combined')


class AttentionParts(NamedTuple):
    """The inputs of one attention module, before its parts are concatenated.

    Attributes:
        queries: the parts of the projected queries, each (B or 1, N, D): content, then spatial; one part if the
            module does not separate them.
        keys: the same number of parts of the keys, each (B or 1, S, D).
        mask: (B, S), True where a key is padding; None if nothing is padded.
        num_heads: H.
        scale: factor of the logits before the softmax; 1 / sqrt(2 D / H) for Conditional DETR.
        rows: indices of the recorded queries; None for all.
        additive: positions are added to contents before the projection, as in DETR; the query of both parts is then
            c_q + o_q.
    """

    queries: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    mask: Tensor | None
    num_heads: int
    scale: float
    rows: tuple[int, ...] | None = None
    additive: bool = False

    def keep(self, rows: tuple[int, ...] | None) -> AttentionParts:
        """The parts of these queries only, as copies; all if None.

        Raises:
            UserError: a query does not exist.
        """
        if rows is None:
            return self
        check_indices('query', rows, self.queries[0].shape[1])
        return self._replace(queries=tuple(part[:, list(rows)] for part in self.queries), rows=rows)


class AttentionMaps(NamedTuple):
    """Maps of one image and layer, (Q, H, h, w) each; each map is a separate softmax and sums to one.

    Attributes:
        spatial: softmax(p_q . p_k).
        content: softmax(c_q . c_k).
        combined: softmax(c_q . c_k + p_q . p_k), the actual attention of the layer.

    Paper: §3.4, Figures 1 and 4.
    """

    spatial: Tensor
    content: Tensor
    combined: Tensor


class TokenGrid(NamedTuple):
    """Location of the tokens of one image.

    Attributes:
        shape: (h, w) of the whole grid, padding included.
        valid: (h, w) of the part that is not padding.
        input_shape: (height, width) of the padded input in pixels.
        img_shape: (height, width) of the resized image in it.
        ori_shape: (height, width) of the original image.
    """

    shape: tuple[int, int]
    valid: tuple[int, int]
    input_shape: tuple[int, int]
    img_shape: tuple[int, int]
    ori_shape: tuple[int, int]

    @property
    def cell(self) -> tuple[float, float]:
        """(height, width) of a token's cell in pixels of the original image."""
        height, width = (self.input_shape[i] / self.shape[i] * self.ori_shape[i] / self.img_shape[i] for i in range(2))
        return height, width

    def cut(self, weights: Tensor) -> Tensor:
        """Remove the padding: (..., S) -> (..., h, w) of the valid part."""
        return weights.unflatten(-1, self.shape)[..., : self.valid[0], : self.valid[1]]

    def resize(self, maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Interpolate maps of the valid part to the original image: (..., h, w) -> (..., height, width).

        Args:
            maps: (..., h, w).
            size: (height, width) of the result; the original image's if None.
        """
        axes = []
        for number, length, cell, count in zip(size or self.ori_shape, self.ori_shape, self.cell, self.valid):
            centres = (torch.arange(number, dtype=torch.float32, device=maps.device) + 0.5) * length / number
            axes.append(centres / cell * 2 / count - 1)  # grid_sample's coordinates: -1 and 1 are the borders
        y, x = torch.meshgrid(*axes, indexing='ij')
        where = torch.stack((x, y), dim=-1)[None]  # (1, height, width, 2)
        resized = F.grid_sample(maps.float().flatten(0, -3)[None], where, padding_mode='border', align_corners=False)
        return resized[0].unflatten(0, maps.shape[:-2])

    def token_at(self, x: float, y: float) -> int:
        """Index into S of the token whose cell contains (x, y), in pixels of the original image.

        Raises:
            UserError: the point is outside the image.
        """
        height, width = self.ori_shape
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f'Point ({x:g}, {y:g}) is outside the image of {width}x{height} pixels.')
        row = min(int(y / self.cell[0]), self.valid[0] - 1)
        return row * self.shape[1] + min(int(x / self.cell[1]), self.valid[1] - 1)


def check_indices(what: str, indices: Sequence[int], count: int) -> None:
    """Raise UserError unless all indices are within 0 ... count - 1."""
    for index in indices:
        if not 0 <= index < count:
            raise UserError(f'There is no {what} {index}: this model has {count}, numbered 0 to {count - 1}.')


def compute_maps(
    parts: AttentionParts, image: int, rows: Sequence[int], heads: Sequence[int], grid: TokenGrid
) -> AttentionMaps:
    """The three maps of one image: ``rows`` index the parts' queries -> (Q, H, h, w) each, in float32.

    Raises:
        UserError: the module does not separate content and position.
    """
    if len(parts.queries) != 2:
        raise UserError(
            'This attention adds content and position before the inner product, so it has only a combined map.'
        )
    content, spatial = (_logits(query, key, parts, image, rows, heads) for query, key in zip(parts.queries, parts.keys))
    return AttentionMaps(*(grid.cut(logits.softmax(dim=-1)) for logits in (spatial, content, content + spatial)))


def compute_combined(
    parts: AttentionParts, image: int, rows: Sequence[int], heads: Sequence[int], grid: TokenGrid
) -> Tensor:
    """The combined map of a module with any number of parts: (Q, H, h, w), in float32."""
    logits = sum(_logits(query, key, parts, image, rows, heads) for query, key in zip(parts.queries, parts.keys))
    return grid.cut(logits.softmax(dim=-1))


def _logits(
    query: Tensor, key: Tensor, parts: AttentionParts, image: int, rows: Sequence[int], heads: Sequence[int]
) -> Tensor:
    """Scaled inner products of one part, minus infinity in the padding: (Q, H, S)."""
    query, key = (part[image if len(part) > 1 else 0].float() for part in (query, key))
    q = query[list(rows)].unflatten(-1, (parts.num_heads, -1))[:, list(heads)]  # (Q, H, D / H)
    k = key.unflatten(-1, (parts.num_heads, -1))[:, list(heads)]  # (S, H, D / H)
    logits = torch.einsum('qhd,shd->qhs', q, k) * parts.scale
    return logits if parts.mask is None else logits.masked_fill(parts.mask[image], float('-inf'))
