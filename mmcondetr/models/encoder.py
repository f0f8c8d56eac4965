"""DETR's transformer encoder: post-norm layers of self-attention among the memory tokens."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmcondetr.layers import checkpointing
from mmcondetr.layers.dropout import Dropout
from mmcondetr.layers.feed_forward import FeedForward, xavier_linear
from mmcondetr.layers.linear import Linear, linear
from mmcondetr.models.attention import DotProductAttention, check_heads, output_projection
from mmcondetr.registry import MODELS


@MODELS.register_module()
class EncoderSelfAttention(nn.Module):
    """Self-attention of the memory tokens: positions are added to queries and keys but not to values, as in DETR.

    Args:
        embed_dims: D.
        num_heads: H.
        dropout: of the attention weights.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.embed_dims = embed_dims
        # One weight for q, k and v, as in nn.MultiheadAttention: all three get the Xavier bound of a (3D, D) matrix.
        self.in_proj = Linear(embed_dims, 3 * embed_dims)
        nn.init.zeros_(self.in_proj.bias)
        self.attention = DotProductAttention(num_heads, dropout)
        self.out_proj = output_projection(embed_dims)

    def forward(self, tokens: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from every token to every token: tokens (B, S, D), position (B or 1, S, D) -> (B, S, D)."""
        both = 2 * self.embed_dims
        weight, bias = self.in_proj.weight, self.in_proj.bias
        q, k = linear(tokens + position, weight[:both], bias[:both]).chunk(2, dim=-1)
        v = linear(tokens, weight[both:], bias[both:])
        return self.out_proj(self.attention((q,), (k,), v, mask))


@MODELS.register_module()
class TransformerEncoderLayer(nn.Module):
    """Self-attention and feed-forward network, each with dropout, a residual connection and LayerNorm.

    Args:
        embed_dims: D.
        num_heads: H.
        feedforward_channels: width of the feed-forward network.
        dropout: of attention weights, feed-forward and both residual branches.
        activation: config of the feed-forward network's activation; ReLU if None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float = 0.1,
        activation: dict | None = None,
    ) -> None:
        super().__init__()
        self.self_attn = EncoderSelfAttention(embed_dims, num_heads, dropout)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout, activation)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """Refine the tokens: (B, S, D) with position (B or 1, S, D) and mask (B, S) -> (B, S, D)."""
        tokens = self.norm1(tokens + self.dropout(self.self_attn(tokens, position, mask)))
        return self.norm2(tokens + self.dropout(self.ffn(tokens)))


@MODELS.register_module()
class TransformerEncoder(BaseModule):
    """A stack of encoder layers without a final norm.

    Args:
        num_layers: number of layers.
        layer: config of one layer.
        with_cp: recompute the layers' activations in the backward pass to save memory.
        init_cfg: mmengine's initialisation, applied after Xavier for every linear weight.
    """

    def __init__(self, num_layers: int, layer: dict, with_cp: bool = False, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp
        self.layers = nn.ModuleList(MODELS.build(layer) for _ in range(num_layers))

    def init_weights(self) -> None:
        """Xavier for every linear weight, as in DETR."""
        xavier_linear(self)
        super().init_weights()

    def forward(self, tokens: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode the flattened feature map into the memory.

        Args:
            tokens: (B, S, D), the neck's feature map, flattened row by row.
            position: (B or 1, S, D), added to the queries and keys of every layer.
            mask: (B, S), True where a token is padding; None if nothing is padded.

        Returns:
            (B, S, D).
        """
        for layer in self.layers:
            tokens = checkpointing.run(layer, tokens, position, mask, recompute=self.with_cp)
        return tokens
