"""Alternative reference points (§4.3): one learned parameter per query, or the image centre as in DETR."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcondetr.models.reference import FixedReferencePoint
from mmcondetr.registry import MODELS


@MODELS.register_module()
class LearnedReferencePoint(FixedReferencePoint):
    """s is a learned parameter of each query, initialised uniformly over the image.

    Args:
        embed_dims: D.
        num_queries: N.

    Paper: §4.3, ablation of the reference point (40.7 AP in the paper).
    """

    def __init__(self, embed_dims: int, num_queries: int) -> None:
        super().__init__(embed_dims)
        self.logits = nn.Parameter(torch.logit(torch.rand(num_queries, 2), eps=1e-3))

    def forward(self, object_query: Tensor) -> Tensor:
        """Logits (x, y) of the points: object_query (B or 1, N, D) -> (B or 1, N, 2).

        Raises:
            ValueError: there are not ``num_queries`` object queries.
        """
        if object_query.shape[1] != len(self.logits):
            raise ValueError(
                f'LearnedReferencePoint: num_queries={len(self.logits)} does not fit '
                f'{object_query.shape[1]} object queries'
            )
        return self.logits.expand(object_query.shape[0], -1, -1)


@MODELS.register_module()
class ZeroReferencePoint(FixedReferencePoint):
    """s = (0, 0), the image centre, for every query, as in DETR.

    Args:
        embed_dims: D.

    Paper: §4.3, ablation of the reference point (36.8 AP in the paper).
    """

    def forward(self, object_query: Tensor) -> Tensor:
        """Zeros: object_query (B or 1, N, D) -> (B or 1, N, 2)."""
        return object_query.new_zeros(*object_query.shape[:2], 2)
