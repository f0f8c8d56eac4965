"""DETR's decoder layer, where positions are added to contents: the paper's starting point (Table 4, footnote 1).

(c_q + o_q) W_q . (c_k + p_k) W_k    instead of    [c_q; p_q] . [c_k; p_k]  (eq. 3)
"""

from __future__ import annotations

from torch import Tensor, nn

from mmcondetr.layers.linear import linear
from mmcondetr.models.attention import EncoderSelfAttention
from mmcondetr.models.decoder import ConditionalDecoderLayer
from mmcondetr.registry import MODELS


@MODELS.register_module()
class AdditiveCrossAttention(EncoderSelfAttention):
    """DETR's cross-attention: one projection of content plus position for queries, one for keys.

    Args:
        embed_dims: D.
        num_heads: H.
        dropout: of the attention weights.
    """

    def forward(self, queries: Tensor, keys: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from every query to the memory.

        Args:
            queries: (B, N, D), contents with positions added.
            keys: (B, S, D), the memory with positions added.
            memory: (B, S, D).
            mask: (B, S), True where a token is padding; None where nothing is padded.

        Returns:
            (B, N, D).
        """
        weights, biases = self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3)
        q, k, v = [linear(*each) for each in zip((queries, keys, memory), weights, biases)]
        return self.out_proj(self.attention((q,), (k,), v, mask))


@MODELS.register_module()
class AdditiveDecoderLayer(ConditionalDecoderLayer):
    """DETR's decoder layer, in the two steps of :class:`~mmcondetr.models.decoder.ConditionalDecoderLayer`.

    The spatial query is not looked at: where to attend is said by the object query, added to the content. Every layer
    is alike, the first one too.

    Args:
        embed_dims: D.
        num_heads: H.
        feedforward_channels: width of the feed-forward network.
        dropout: of attention weights, feed-forward and the three residual branches.
        activation: config of the feed-forward network's activation, ReLU where None.
        index: place in the decoder.

    Paper: §4.3, Table 4 (the rows without CSQ).
    """

    def build_attention(self, embed_dims: int, num_heads: int, dropout: float) -> tuple[nn.Module, nn.Module]:
        """The self-attention and the cross-attention: one projection each for queries, keys and values."""
        return (
            EncoderSelfAttention(embed_dims, num_heads, dropout),
            AdditiveCrossAttention(embed_dims, num_heads, dropout),
        )

    def attend_to_memory(
        self,
        c_q: Tensor,
        p_q: Tensor,
        object_query: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """What the cross-attention gives, (B, N, D), before dropout and residual; ``p_q`` is not used."""
        queries, keys = self.add_positions(c_q, object_query, memory, memory_position)
        return self.cross_attn(queries, keys, memory, mask)

    def add_positions(
        self, c_q: Tensor, object_query: Tensor, memory: Tensor, memory_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The queries (B, N, D) and keys (B, S, D) of the cross-attention, before projection."""
        return c_q + object_query, memory + memory_position


@MODELS.register_module()
class FirstPositionDecoderLayer(AdditiveDecoderLayer):
    """DETR's decoder layer whose cross-attention knows positions in the first layer only.

    From the second layer on neither the keys' positions nor the object queries are added in the cross-attention.
    Self-attention keeps the object queries, for the footnote speaks of keys, which are the memory's. Arguments as
    :class:`AdditiveDecoderLayer`.

    Paper: §1, footnote 1 (DETR-R50, 50 epochs: 34.9 -> 34.0 AP, the paper's).
    """

    def add_positions(
        self, c_q: Tensor, object_query: Tensor, memory: Tensor, memory_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`AdditiveDecoderLayer.add_positions`."""
        if self.index > 0:
            return c_q, memory
        return super().add_positions(c_q, object_query, memory, memory_position)
