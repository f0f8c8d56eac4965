"""Ablated spatial queries (Table 3): p_q without the position, the condition or the transform."""

from __future__ import annotations

from mmdet.models.layers import MLP
from torch import Tensor, nn

from mmcondetr.models.spatial_query import ConditionalSpatialQueryHead
from mmcondetr.registry import MODELS


@MODELS.register_module()
class SelfAttentionSpatialQueryHead(ConditionalSpatialQueryHead):
    """CSQ-I: p_q = T p_s with T predicted from c_q, the self-attention's output.

    Args:
        embed_dims: D.
        num_heads: H.
        transform: config of T; diagonal if None.

    Paper: §4.3, Table 3 (40.2 AP in the paper).
    """

    def source(self, f: Tensor, c_q: Tensor) -> Tensor:
        """What T is predicted from: the self-attention's output."""
        return c_q


@MODELS.register_module()
class TransformSpatialQuery(nn.Module):
    """CSQ-T: p_q = lambda(f), the predicted diagonal itself, without p_s.

    Args:
        embed_dims: D.
        num_heads: H; unused.

    Paper: §4.3, Table 3 (37.6 AP in the paper).
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.predictor = MLP(embed_dims, embed_dims, embed_dims, 2)

    def forward(self, f: Tensor, c_q: Tensor, p_s: Tensor) -> Tensor:
        """See :meth:`ConditionalSpatialQueryHead.forward`."""
        return self.predictor(f)


@MODELS.register_module()
class PositionSpatialQuery(nn.Module):
    """CSQ-P: p_q = p_s in every layer: the position without conditioning on f.

    Args:
        embed_dims: D.
        num_heads: H; unused.

    Paper: §4.3, Table 3 (37.8 AP in the paper).
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()

    def forward(self, f: Tensor, c_q: Tensor, p_s: Tensor) -> Tensor:
        """See :meth:`ConditionalSpatialQueryHead.forward`."""
        return p_s


@MODELS.register_module()
class ContentSpatialQuery(nn.Module):
    """CSQ-C: p_q = f, the decoder embedding, without p_s.

    Args:
        embed_dims: D.
        num_heads: H; unused.

    Paper: §4.3, Table 3 (37.1 AP in the paper).
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()

    def forward(self, f: Tensor, c_q: Tensor, p_s: Tensor) -> Tensor:
        """See :meth:`ConditionalSpatialQueryHead.forward`."""
        return f
