"""Alternative transforms T of the spatial query p_q = T p_s (Figure 5); the default is diagonal."""

from __future__ import annotations

from torch import Tensor, nn

from mmcondetr.models.attention import check_heads
from mmcondetr.registry import MODELS


@MODELS.register_module()
class IdentityTransform(nn.Module):
    """T = I: p_q = p_s; nothing is predicted.

    Args:
        embed_dims: D.
        num_heads: H.

    Paper: §4.3, Figure 5.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_values = 0

    def forward(self, values: Tensor, p_s: Tensor) -> Tensor:
        """Return p_s (B, N, D) unchanged; values are unused."""
        return p_s


@MODELS.register_module()
class SingleTransform(nn.Module):
    """T = lambda I: one number scales p_s.

    Args:
        embed_dims: D.
        num_heads: H.

    Paper: §4.3, Figure 5.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_values = 1

    def forward(self, values: Tensor, p_s: Tensor) -> Tensor:
        """Transform p_s (B, N, D) by values (B, N, 1) -> (B, N, D)."""
        return values * p_s


@MODELS.register_module()
class BlockTransform(nn.Module):
    """T is block-diagonal, one (D/H, D/H) block per head.

    Args:
        embed_dims: D.
        num_heads: H.

    Paper: §4.3, Figure 5.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.num_heads = num_heads
        self.head_dims = embed_dims // num_heads
        self.num_values = num_heads * self.head_dims**2

    def forward(self, values: Tensor, p_s: Tensor) -> Tensor:
        """Transform p_s (B, N, D) by values (B, N, H * (D/H)^2), blocks row by row -> (B, N, D)."""
        blocks = values.unflatten(-1, (self.num_heads, self.head_dims, self.head_dims))
        heads = p_s.unflatten(-1, (self.num_heads, self.head_dims, 1))  # (B, N, H, D/H, 1)
        return (blocks @ heads).flatten(-3)


@MODELS.register_module()
class FullTransform(BlockTransform):
    """T is a full (D, D) matrix: a single block.

    Args:
        embed_dims: D.
        num_heads: H; unused.

    Paper: §4.3, Figure 5.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__(embed_dims, num_heads=1)
