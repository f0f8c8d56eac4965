"""Attention: the decoder's self-attention and conditional cross-attention (§3.2, eq. 3).

Queries and keys may consist of several parts, content and spatial. Each part has its own projection, and the parts are
concatenated within each head, so the attention logit is the sum of a content and a spatial inner product:

    [c_q; p_q] . [c_k; p_k]  =  c_q . c_k  +  p_q . p_k                                    (eq. 3)

:class:`DotProductAttention` is the only place that concatenates parts and takes a softmax. To inspect the parts,
register a forward pre-hook on it (see mmcondetr/visualization).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcondetr.layers.dropout import uses_seeded_dropout
from mmcondetr.layers.dropout_attention import dropout_attention
from mmcondetr.layers.explicit_attention import explicit_attention, is_faster
from mmcondetr.layers.linear import Linear
from mmcondetr.registry import MODELS


class Memory(NamedTuple):
    """What the decoder attends to.

    Attributes:
        content: (B, S, D), the encoder's output.
        position: (B or 1, S, D), the sinusoidal embedding of the tokens' positions.
        mask: (B, S), True where a token is padding; None if nothing is padded.
    """

    content: Tensor
    position: Tensor
    mask: Tensor | None = None


class DotProductAttention(nn.Module):
    """softmax(q k^T / sqrt(width of q per head)) v in H heads, with dropout on the attention weights.

    Args:
        num_heads: H.
        dropout: probability of zeroing an attention weight in training.
    """

    def __init__(self, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout

    def forward(
        self, queries: Sequence[Tensor], keys: Sequence[Tensor], value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            queries: parts of the queries, each (B, N, D) or (1, N, D); concatenated within each head.
            keys: the same number of parts of the keys, each (B, S, D) or (1, S, D).
            value: (B, S, D).
            mask: (B, S), True where a key is padding; None if nothing is padded.

        Returns:
            (B, N, D).
        """
        q, k, v = (self._heads(parts, value.shape[0]) for parts in (queries, keys, (value,)))
        if uses_seeded_dropout(self, self.dropout, q):
            return dropout_attention(q, k, v, self.dropout, mask).transpose(1, 2).flatten(2)
        if is_faster(q):
            return explicit_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        # torch's fused kernels need q, k and v of equal width; padding v with zeros is cheaper than an unfused kernel.
        wide = F.pad(v, (0, q.shape[-1] - v.shape[-1]))
        keep = None if mask is None else ~mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, wide, keep, dropout)  # (B, H, N, width of q per head)
        return attended[..., : v.shape[-1]].transpose(1, 2).flatten(2)

    def _heads(self, parts: Sequence[Tensor], batch: int) -> Tensor:
        """Split each part into heads and concatenate the parts: (B, H, tokens, parts * D / H)."""
        heads = [part.unflatten(-1, (self.num_heads, -1)).expand(batch, -1, -1, -1) for part in parts]
        return (heads[0] if len(heads) == 1 else torch.cat(heads, dim=-1)).transpose(1, 2)


#: (attention, q, k, v), with q, k and v (B, N, D) -> (B, N, D): self-attention within sets of queries.
Among = Callable[[DotProductAttention, Tensor, Tensor, Tensor], Tensor]


def check_heads(embed_dims: int, num_heads: int) -> None:
    """Raise ValueError unless the channels divide evenly among the heads."""
    if num_heads < 1 or embed_dims % num_heads:
        raise ValueError(f'embed_dims={embed_dims} must be a multiple of num_heads={num_heads}')


def output_projection(embed_dims: int) -> nn.Linear:
    """The linear layer after attention, with its bias initialised to zero."""
    projection = Linear(embed_dims, embed_dims)
    nn.init.zeros_(projection.bias)
    return projection


@MODELS.register_module()
class SelfAttention(nn.Module):
    """Self-attention of the decoder: content and position have separate projections, which are added.

    Args:
        embed_dims: D.
        num_heads: H.
        dropout: of the attention weights.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.query_content_proj = Linear(embed_dims, embed_dims)
        self.query_position_proj = Linear(embed_dims, embed_dims)
        self.key_content_proj = Linear(embed_dims, embed_dims)
        self.key_position_proj = Linear(embed_dims, embed_dims)
        self.value_proj = Linear(embed_dims, embed_dims)
        self.attention = DotProductAttention(num_heads, dropout)
        self.out_proj = output_projection(embed_dims)

    def forward(self, f: Tensor, object_query: Tensor, among: Among | None = None) -> Tensor:
        """Attend from every query to every query, or as ``among`` restricts it.

        Args:
            f: (B, N, D).
            object_query: (B or 1, N, D).
            among: restricts which queries attend to each other (models/training); None if all do.

        Returns:
            (B, N, D).
        """
        q = self.query_content_proj(f) + self.query_position_proj(object_query)
        k = self.key_content_proj(f) + self.key_position_proj(object_query)
        v = self.value_proj(f)
        return self.out_proj(self.attention((q,), (k,), v) if among is None else among(self.attention, q, k, v))


@MODELS.register_module()
class ConditionalCrossAttention(nn.Module):
    """Conditional cross-attention: [c_q; p_q] . [c_k; p_k], with values from the content alone.

    Content and spatial queries and keys have separate projections; the softmax scale is 1 / sqrt(2 D / H).

    Args:
        embed_dims: D.
        num_heads: H.
        dropout: of the attention weights.

    Paper: §3.2, eq. 3.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.query_content_proj = Linear(embed_dims, embed_dims)
        self.query_spatial_proj = Linear(embed_dims, embed_dims)
        self.key_content_proj = Linear(embed_dims, embed_dims)
        self.key_position_proj = Linear(embed_dims, embed_dims)
        self.value_proj = Linear(embed_dims, embed_dims)
        self.attention = DotProductAttention(num_heads, dropout)
        self.out_proj = output_projection(embed_dims)

    def forward(self, c_q: Tensor, p_q: Tensor, memory: Memory) -> Tensor:
        """Attend from the queries to the memory: c_q (B, N, D), p_q (B or 1, N, D) -> (B, N, D)."""
        c_k, p_k = self.key_content_proj(memory.content), self.key_position_proj(memory.position)
        return self.attend(self.query_content_proj(c_q), p_q, c_k, p_k, memory)

    def attend(self, c_q: Tensor, p_q: Tensor, c_k: Tensor, p_k: Tensor, memory: Memory) -> Tensor:
        """Eq. 3, given projected content queries and keys; the spatial query is projected here."""
        queries, keys = (c_q, self.query_spatial_proj(p_q)), (c_k, p_k)
        return self.out_proj(self.attention(queries, keys, self.value_proj(memory.content), memory.mask))


@MODELS.register_module()
class FirstConditionalCrossAttention(ConditionalCrossAttention):
    """The first layer adds the object query to the content query, and the key position to the content key.

    The decoder embedding is zero before the first layer, so content alone carries no information about location.

    Args:
        embed_dims: D.
        num_heads: H.
        dropout: of the attention weights.

    Paper: §3.5 (implementation of the first decoder layer).
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(embed_dims, num_heads, dropout)
        self.query_position_proj = Linear(embed_dims, embed_dims)

    def forward(self, c_q: Tensor, p_q: Tensor, memory: Memory, object_query: Tensor) -> Tensor:
        """Like :meth:`ConditionalCrossAttention.forward`, given the object queries o_q (B or 1, N, D)."""
        c_k, p_k = self.key_content_proj(memory.content), self.key_position_proj(memory.position)
        c_q = self.query_content_proj(c_q) + self.query_position_proj(object_query)
        return self.attend(c_q, p_q, c_k + p_k, p_k, memory)
