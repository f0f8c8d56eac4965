"""The reference point s of an object query: where it starts to look, and what its box is predicted relative to.

Predicted from the object query by default; learned as a parameter, or zero (the image centre, DETR's) for the
ablation of §4.3. All give logits: sigmoid(s) is the point in fractions of the image. These three stay where they are
from layer to layer; DAB-DETR's anchor boxes, which move, are in dab.py.
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
    """Where the queries are when a decoder layer begins.

    Attributes:
        reference: (B or 1, N, 2 or 4), logits of points (x, y) or boxes (cx, cy, w, h); boxes are predicted from it.
        origin: the same values; what the next layer's reference is computed from, without the gradient of the layers
            before.
        p_s: (B or 1, N, D), the embedding that spatial queries are made of.
        object_query: (B or 1, N, D), the queries' position in self-attention and in the first cross-attention.
    """

    reference: Tensor
    origin: Tensor
    p_s: Tensor
    object_query: Tensor


class StillReferencePoint(nn.Module):
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

    def start(self, object_query: Tensor, memory: Tensor) -> tuple[Tensor, Position]:
        """Before the first layer: object_query (B or 1, N, D), memory (B, S, D) -> f = 0 (B, N, D) and the position."""
        reference = self(object_query)
        p_s = sine_embed(reference.sigmoid(), self.embed_dims).to(memory.dtype)  # (B or 1, N, D), eq. 5
        f = memory.new_zeros(memory.shape[0], *object_query.shape[1:])
        return f, Position(reference, reference, p_s, object_query)

    def move(self, position: Position, f: Tensor, box_embed: nn.Module | None) -> Position:
        """Before every further layer, with f (B, N, D) and the head's box MLP: the same position."""
        return position


@MODELS.register_module()
class ReferencePoint(StillReferencePoint):
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


@MODELS.register_module()
class LearnedReferencePoint(StillReferencePoint):
    """s is a parameter of every query, spread evenly over the image at the start.

    Args:
        embed_dims: D.
        num_queries: N.

    Paper: §4.3, ablation of the reference point (40.7 AP, the paper's).
    """

    def __init__(self, embed_dims: int, num_queries: int) -> None:
        super().__init__(embed_dims)
        self.logits = nn.Parameter(torch.logit(torch.rand(num_queries, 2), eps=1e-3))

    def forward(self, object_query: Tensor) -> Tensor:
        """Logits (x, y) of the points: object_query (B or 1, N, D) -> (B or 1, N, 2).

        Raises:
            ValueError: if there are other than ``num_queries`` object queries.
        """
        if object_query.shape[1] != len(self.logits):
            raise ValueError(
                f'LearnedReferencePoint: num_queries={len(self.logits)} does not fit '
                f'{object_query.shape[1]} object queries'
            )
        return self.logits.expand(object_query.shape[0], -1, -1)


@MODELS.register_module()
class ZeroReferencePoint(StillReferencePoint):
    """s = (0, 0), the image centre, for every query: DETR's.

    Args:
        embed_dims: D.

    Paper: §4.3, ablation of the reference point (36.8 AP, the paper's).
    """

    def forward(self, object_query: Tensor) -> Tensor:
        """Zeros: object_query (B or 1, N, D) -> (B or 1, N, 2)."""
        return object_query.new_zeros(*object_query.shape[:2], 2)
