"""The reference point s of an object query: where it starts to look, and what its box is predicted relative to.

It is predicted from the object query, as logits: sigmoid(s) is the point in fractions of the image. It stays where it
is from layer to layer. Its relatives: ablations/reference_points.py has points that are learned, or zero (§4.3), dab.py
the anchor boxes of DAB-DETR, which move.
"""

from __future__ import annotations

from typing import NamedTuple

from mmdet.models.layers import MLP
from torch import Tensor, nn

from mmcondetr.layers.precision import full_precision
from mmcondetr.models.positional import sine_embed
from mmcondetr.registry import MODELS


class Position(NamedTuple):
    """Where the queries are when a decoder layer begins.

    Attributes:
        reference: (B or 1, N, 2 or 4), logits of points (x, y) or boxes (cx, cy, w, h); boxes are predicted from it.
        p_s: (B or 1, N, D), the embedding that spatial queries are made of.
        object_query: (B or 1, N, D), o_q: the queries' position in self-attention and in the first cross-attention.
    """

    reference: Tensor
    p_s: Tensor
    object_query: Tensor


class FixedReferencePoint(nn.Module):
    """What the reference points that do not move have in common; ``forward`` is each one's own.

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
        """Called once, with the head: points that do not move need nothing of it."""

    def start(self, object_query: Tensor, memory: Tensor, content: Tensor | None = None) -> tuple[Tensor, Position]:
        """Before the first layer: o_q (B or 1, N, D), memory (B, S, D) -> f (B, N, D) and the position.

        f is zero unless the queries come with a ``content`` (B, N, D).
        """
        reference = self(object_query)
        f = memory.new_zeros(memory.shape[0], *object_query.shape[1:]) if content is None else content
        return f, Position(reference, self.embed(reference, object_query), object_query)

    def embed(self, reference: Tensor, object_query: Tensor) -> Tensor:
        """p_s = sinusoidal(sigmoid(s)), eq. 5: reference (B or 1, N, 2) -> (B or 1, N, D), in the precision of o_q."""
        return sine_embed(reference.sigmoid(), self.embed_dims).to(object_query.dtype)

    def move(self, position: Position, f: Tensor) -> Position:
        """Before every further layer, with what the last one found, f (B, N, D): the same position."""
        return position


@MODELS.register_module()
class ReferencePoint(FixedReferencePoint):
    """s = FFN(o_q): FC + ReLU + FC on the object query. The default.

    Args:
        embed_dims: D.

    Paper: §3.3, reference points; §4.3 (40.9 AP, the paper's).
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__(embed_dims)
        self.predictor = MLP(embed_dims, embed_dims, 2, 2)

    def forward(self, object_query: Tensor) -> Tensor:
        """Logits (x, y) of the points: (B or 1, N, D) -> (B or 1, N, 2)."""
        with full_precision(object_query):
            return self.predictor(object_query)
