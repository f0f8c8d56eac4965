"""The reference point s of an object query: where it starts to look, and what its box is predicted relative to.

Predicted from the object query by default; learned as a parameter, or zero (the image centre, DETR's) for the
ablation of §4.3. All give logits: sigmoid(s) is the point in fractions of the image.
"""

import torch
from mmdet.models.layers import MLP
from torch import Tensor, nn

from mmcondetr.registry import MODELS


@MODELS.register_module()
class ReferencePoint(nn.Module):
    """s = FFN(o_q): FC + ReLU + FC on the object query. The default.

    Args:
        embed_dims: D.

    Paper: §3.3, reference points; §4.3 (40.9 AP, the paper's).
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.predictor = MLP(embed_dims, embed_dims, 2, 2)

    def forward(self, object_query: Tensor) -> Tensor:
        """Logits (x, y) of the points: (B or 1, N, D) -> (B or 1, N, 2)."""
        return self.predictor(object_query)


@MODELS.register_module()
class LearnedReferencePoint(nn.Module):
    """s is a parameter of every query, spread evenly over the image at the start.

    Args:
        num_queries: N.

    Paper: §4.3, ablation of the reference point (40.7 AP, the paper's).
    """

    def __init__(self, num_queries: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.logit(torch.rand(num_queries, 2), eps=1e-3))

    def forward(self, object_query: Tensor) -> Tensor:
        """Logits (x, y) of the points: object_query (B or 1, N, D) -> (B or 1, N, 2).

        Raises:
            ValueError: if there are other than ``num_queries`` object queries.
        """
        if object_query.shape[1] != len(self.logits):
            raise ValueError(f'LearnedReferencePoint: num_queries={len(self.logits)} does not fit '
                             f'{object_query.shape[1]} object queries')
        return self.logits.expand(object_query.shape[0], -1, -1)


@MODELS.register_module()
class ZeroReferencePoint(nn.Module):
    """s = (0, 0), the image centre, for every query: DETR's.

    Paper: §4.3, ablation of the reference point (36.8 AP, the paper's).
    """

    def forward(self, object_query: Tensor) -> Tensor:
        """Zeros: object_query (B or 1, N, D) -> (B or 1, N, 2)."""
        return object_query.new_zeros(*object_query.shape[:2], 2)
