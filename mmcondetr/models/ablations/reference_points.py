"""Other reference points (§4.3): a parameter of every query, or the image centre, which is DETR's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcondetr.models.reference import FixedReferencePoint
from mmcondetr.registry import MODELS


@MODELS.register_module()
class LearnedReferencePoint(FixedReferencePoint):
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
class ZeroReferencePoint(FixedReferencePoint):
    """s = (0, 0), the image centre, for every query: DETR's.

    Args:
        embed_dims: D.

    Paper: §4.3, ablation of the reference point (36.8 AP, the paper's).
    """

    def forward(self, object_query: Tensor) -> Tensor:
        """Zeros: object_query (B or 1, N, D) -> (B or 1, N, 2)."""
        return object_query.new_zeros(*object_query.shape[:2], 2)
