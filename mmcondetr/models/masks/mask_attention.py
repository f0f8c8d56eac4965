"""Attention maps for the mask head: where each query looks. The weights are used as features, not to sum values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcondetr.layers.linear import Linear


class MaskAttention(nn.Module):
    """Attention weights of queries over the memory, softmax taken over all heads and tokens of a query together.

    Args:
        embed_dims: D.
        num_heads: H.

    Paper: DETR, section 4.4, Figure 8.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_proj = Linear(embed_dims, embed_dims)
        self.key_proj = Linear(embed_dims, embed_dims)
        for projection in (self.query_proj, self.key_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, queries: list[Tensor], memory: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from each image's queries to its memory.

        Args:
            queries: per image (K_b, D); K is the sum of K_b.
            memory: (B, S, D).
            mask: (B, S), True where a token is padding; None if nothing is padded.

        Returns:
            (K, H, S); the H * S weights of a query sum to 1.
        """
        maps = [
            self.weights(each[None], memory[image, None], None if mask is None else mask[image, None])[0]
            for image, each in enumerate(queries)
        ]
        return torch.cat(maps)

    def weights(self, queries: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Like :meth:`forward`, with the same number of queries in every image: (B, K, D) -> (B, K, H, S)."""
        keys = self.key_proj(memory).unflatten(-1, (self.num_heads, -1))  # (B, S, H, D / H)
        q = self.query_proj(queries).unflatten(-1, (self.num_heads, -1))  # (B, K, H, D / H)
        scores = torch.einsum('bkhd,bshd->bkhs', q * q.shape[-1] ** -0.5, keys)
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None], float('-inf'))
        return scores.flatten(2).softmax(-1).view_as(scores)
