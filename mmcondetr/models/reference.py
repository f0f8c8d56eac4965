"""The reference point s of an object query: where attention starts, and the origin of the predicted box.

It is predicted from the object query as logits: sigmoid(s) is the point in fractions of the image. All decoder layers
share it. Alternatives: learned or zero points (§4.3, ablations/reference_points.py), and DAB-DETR's anchor boxes,
which every layer refines (dab.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.models.layers import MLP
from torch import Tensor, nn

from mmcondetr.layers.precision import full_precision
from mmcondetr.models.positional import sine_embed
from mmcondetr.registry import MODELS


class Position(NamedTuple):
    """The queries' position at the start of a decoder layer.

    Attributes:
        reference: (B or 1, N, 2 or 4), logits of points (x, y) or boxes (cx, cy, w, h) that boxes are predicted from.
        p_s: (B or 1, N, D), the embedding that the spatial query transforms.
        object_query: (B or 1, N, D), o_q, added in self-attention and in the first cross-attention.
    """

    reference: Tensor
    p_s: Tensor
    object_query: Tensor


class FixedReferencePoint(nn.Module):
    """Base class of reference points that stay fixed across layers.

    Args:
        embed_dims: D.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims

    def query_embedding(self, num_queries: int) -> nn.Embedding:
        """The learned object queries o_q, weight (N, D)."""
        return nn.Embedding(num_queries, self.embed_dims)

    def use_head(self, head: nn.Module) -> None:
        """Called once with the head, which fixed points do not need."""

    def start(
        self, object_query: Tensor, memory: Tensor, content: Tensor | None = None, given: Tensor | None = None
    ) -> tuple[Tensor, Position]:
        """Before the first layer: o_q (B or 1, N, D), memory (B, S, D) -> f (B, N, D) and the position.

        f is zero unless ``content`` (B, N, D) is given; the points are those of :meth:`forward`, except that ``given``
        (B, K, 2) are those of the last K queries.
        """
        if given is None:
            reference = self(object_query)
        else:
            reference = torch.cat((self(object_query[:, : object_query.shape[1] - given.shape[1]]), given), dim=1)
        f = memory.new_zeros(memory.shape[0], *object_query.shape[1:]) if content is None else content
        return f, Position(reference, self.embed(reference, object_query), object_query)

    def forward(self, object_query: Tensor) -> Tensor:
        """Logits s = (x, y) of the points, defined by the subclass: o_q (B or 1, N, D) -> (B or 1, N, 2)."""
        raise NotImplementedError

    def embed(self, reference: Tensor, object_query: Tensor) -> Tensor:
        """p_s = sinusoidal(sigmoid(s)), eq. 5: reference (B or 1, N, 2) -> (B or 1, N, D), in the dtype of o_q."""
        return sine_embed(reference.sigmoid(), self.embed_dims).to(object_query.dtype)

    def move(self, position: Position, f: Tensor) -> Position:
        """The next layer's position, given the last layer's output f (B, N, D): unchanged."""
        return position


@MODELS.register_module()
class ReferencePoint(FixedReferencePoint):
    """s = FFN(o_q), FFN = FC + ReLU + FC: predicted from the object query. The default.

    Args:
        embed_dims: D.

    Paper: §3.3, reference points; §4.3 (40.9 AP in the paper).
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__(embed_dims)
        self.predictor = MLP(embed_dims, embed_dims, 2, 2)

    def forward(self, object_query: Tensor) -> Tensor:
        """Logits (x, y) of the points: (B or 1, N, D) -> (B or 1, N, 2)."""
        with full_precision(object_query):
            return self.predictor(object_query)
