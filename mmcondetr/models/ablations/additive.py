"""DETR's decoder, which adds positions to contents: the paper's baseline (Table 4, footnote 1).

    (c_q + o_q) W_q . (c_k + p_k) W_k    instead of    [c_q; p_q] . [c_k; p_k]  (eq. 3)

In the loop of decoder.py this means p_s = o_q, hence p_q = o_q in every layer, and layers that add. The reference point
is then only the origin of predicted boxes: the paper's offset regression (OR).
"""

from __future__ import annotations

from torch import Tensor, nn

from mmcondetr.layers.linear import linear
from mmcondetr.models.ablations.reference_points import ZeroReferencePoint
from mmcondetr.models.ablations.spatial_queries import PositionSpatialQuery
from mmcondetr.models.attention import Memory
from mmcondetr.models.decoder import ConditionalDecoderLayer
from mmcondetr.models.encoder import EncoderSelfAttention
from mmcondetr.models.reference import ReferencePoint
from mmcondetr.registry import MODELS


@MODELS.register_module()
class AdditiveReferencePoint(ReferencePoint):
    """Points predicted from the object query, with p_s = o_q.

    Args:
        embed_dims: D.

    Paper: §4.3, Table 4 (the rows with OR and without CSQ).
    """

    def embed(self, reference: Tensor, object_query: Tensor) -> Tensor:
        """p_s = o_q (B or 1, N, D)."""
        return object_query


@MODELS.register_module()
class AdditiveZeroReferencePoint(ZeroReferencePoint):
    """As in DETR, boxes are predicted relative to the image centre, and p_s = o_q.

    Args:
        embed_dims: D.

    Paper: §4.3, Table 4 (the rows with neither OR nor CSQ).
    """

    def embed(self, reference: Tensor, object_query: Tensor) -> Tensor:
        """p_s = o_q (B or 1, N, D)."""
        return object_query


@MODELS.register_module()
class AdditiveCrossAttention(EncoderSelfAttention):
    """DETR's cross-attention: one projection of content + position for queries, one for keys.

    Args:
        embed_dims: D.
        num_heads: H.
        dropout: of the attention weights.
    """

    def forward(self, c_q: Tensor, p_q: Tensor, memory: Memory, object_query: Tensor | None = None) -> Tensor:
        """Attend from the queries to the memory.

        Args:
            c_q: (B, N, D), the self-attention's output.
            p_q: (B or 1, N, D), the object query.
            memory: what the queries attend to.
            object_query: given in the first layer only, where it must be ``p_q``.

        Returns:
            (B, N, D).

        Raises:
            ValueError: ``p_q`` is not the object query.
        """
        if object_query is not None and p_q is not object_query:
            raise ValueError(
                f'{type(self).__name__}: the additive decoder needs p_s = o_q: decoder.reference_point must be '
                'AdditiveReferencePoint or AdditiveZeroReferencePoint'
            )
        p_q, p_k = self.positions(p_q, memory)
        parts = (c_q + p_q, memory.content + p_k, memory.content)
        q, k, v = [linear(*each) for each in zip(parts, self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3))]
        return self.out_proj(self.attention((q,), (k,), v, memory.mask))

    def positions(self, p_q: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The positions added to content queries, (B or 1, N, D), and to content keys, (B or 1, S, D)."""
        return p_q, memory.position


@MODELS.register_module()
class ContentCrossAttention(AdditiveCrossAttention):
    """DETR's cross-attention without positions. Arguments as in :class:`AdditiveCrossAttention`."""

    def positions(self, p_q: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Zeros: see :meth:`AdditiveCrossAttention.positions`."""
        return p_q.new_zeros(()), memory.position.new_zeros(())


@MODELS.register_module()
class AdditiveDecoderLayer(ConditionalDecoderLayer):
    """DETR's decoder layer, in the two steps of :class:`~mmcondetr.models.decoder.ConditionalDecoderLayer`.

    All layers are alike, including the first.

    Args:
        embed_dims: D.
        num_heads: H.
        feedforward_channels: width of the feed-forward network.
        dropout: of attention weights, feed-forward and the three residual branches.
        activation: config of the feed-forward network's activation; ReLU if None.
        index: position in the decoder.

    Paper: §4.3, Table 4 (the rows without CSQ).
    """

    def build_attention(self, embed_dims: int, num_heads: int, dropout: float) -> tuple[nn.Module, nn.Module]:
        """Self-attention and cross-attention with one projection each for queries, keys and values."""
        return (
            EncoderSelfAttention(embed_dims, num_heads, dropout),
            AdditiveCrossAttention(embed_dims, num_heads, dropout),
        )

    def check_spatial_query(self, spatial_query: nn.Module) -> None:
        """Raise a ValueError unless p_q = p_s: with a transform, the layers after the first would not be DETR's."""
        if not isinstance(spatial_query, PositionSpatialQuery):
            raise ValueError(
                f'{type(self).__name__}: the additive decoder needs p_q = p_s: decoder.spatial_query must be '
                f'PositionSpatialQuery, got {type(spatial_query).__name__}'
            )


@MODELS.register_module()
class FirstPositionDecoderLayer(AdditiveDecoderLayer):
    """DETR's decoder layer with positions in the cross-attention of the first layer only.

    From the second layer on, cross-attention adds neither the keys' positions nor the object queries. Self-attention
    keeps the object queries, because the footnote is about the memory's keys. Arguments as in
    :class:`AdditiveDecoderLayer`.

    Paper: §1, footnote 1 (DETR-R50, 50 epochs: 34.9 -> 34.0 AP in the paper).
    """

    def build_attention(self, embed_dims: int, num_heads: int, dropout: float) -> tuple[nn.Module, nn.Module]:
        """The self-attention and the cross-attention of the layer at ``self.index``."""
        self_attention, additive = super().build_attention(embed_dims, num_heads, dropout)
        return self_attention, ContentCrossAttention(embed_dims, num_heads, dropout) if self.index > 0 else additive
