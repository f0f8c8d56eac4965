"""DETR's decoder, where positions are added to contents: the paper's starting point (Table 4, footnote 1).

    (c_q + o_q) W_q . (c_k + p_k) W_k    instead of    [c_q; p_q] . [c_k; p_k]  (eq. 3)

In the loop of decoder.py that is p_s = o_q, so that p_q = o_q in every layer, and layers that add. A reference point is
then only what boxes are predicted relative to: the paper's offset regression (OR).
"""

from __future__ import annotations

from torch import Tensor, nn

from mmcondetr.layers.linear import linear
from mmcondetr.models.ablations.reference_points import ZeroReferencePoint
from mmcondetr.models.attention import Memory
from mmcondetr.models.decoder import ConditionalDecoderLayer
from mmcondetr.models.encoder import EncoderSelfAttention
from mmcondetr.models.reference import ReferencePoint
from mmcondetr.registry import MODELS


@MODELS.register_module()
class AdditiveReferencePoint(ReferencePoint):
    """Points predicted from the object query, which itself says where to look: p_s = o_q.

    Args:
        embed_dims: D.

    Paper: §4.3, Table 4 (the rows with OR and without CSQ).
    """

    def embed(self, reference: Tensor, object_query: Tensor) -> Tensor:
        """p_s = o_q (B or 1, N, D)."""
        return object_query


@MODELS.register_module()
class AdditiveZeroReferencePoint(ZeroReferencePoint):
    """DETR's: boxes are predicted relative to the image centre, and p_s = o_q.

    Args:
        embed_dims: D.

    Paper: §4.3, Table 4 (the rows with neither OR nor CSQ).
    """

    def embed(self, reference: Tensor, object_query: Tensor) -> Tensor:
        """p_s = o_q (B or 1, N, D)."""
        return object_query


@MODELS.register_module()
class AdditiveCrossAttention(EncoderSelfAttention):
    """DETR's cross-attention: one projection of content plus position for queries, one for keys.

    Args:
        embed_dims: D.
        num_heads: H.
        dropout: of the attention weights.
    """

    def forward(self, c_q: Tensor, p_q: Tensor, memory: Memory, object_query: Tensor | None = None) -> Tensor:
        """Attend from every query to the memory.

        Args:
            c_q: (B, N, D), the self-attention's output.
            p_q: (B or 1, N, D), the object query.
            memory: what is attended to.
            object_query: as ``p_q``; given in the first layer, where it is compared.

        Returns:
            (B, N, D).

        Raises:
            ValueError: ``p_q`` is not the object query.
        """
        if object_query is not None and p_q is not object_query:
            raise ValueError(
                f'{type(self).__name__}: the additive decoder needs p_s = o_q: decoder.reference_point must be '
                'AdditiveReferencePoint or AdditiveZeroReferencePoint, and decoder.spatial_query PositionSpatialQuery'
            )
        p_q, p_k = self.positions(p_q, memory)
        parts = (c_q + p_q, memory.content + p_k, memory.content)
        q, k, v = [linear(*each) for each in zip(parts, self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3))]
        return self.out_proj(self.attention((q,), (k,), v, memory.mask))

    def positions(self, p_q: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """What is added to the content queries, (B or 1, N, D), and to the content keys, (B or 1, S, D)."""
        return p_q, memory.position


@MODELS.register_module()
class ContentCrossAttention(AdditiveCrossAttention):
    """DETR's cross-attention without positions. Arguments as :class:`AdditiveCrossAttention`."""

    def positions(self, p_q: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Zeros: see :meth:`AdditiveCrossAttention.positions`."""
        return p_q.new_zeros(()), memory.position.new_zeros(())


@MODELS.register_module()
class AdditiveDecoderLayer(ConditionalDecoderLayer):
    """DETR's decoder layer, in the two steps of :class:`~mmcondetr.models.decoder.ConditionalDecoderLayer`.

    Every layer is alike, the first one too.

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


@MODELS.register_module()
class FirstPositionDecoderLayer(AdditiveDecoderLayer):
    """DETR's decoder layer whose cross-attention knows positions in the first layer only.

    From the second layer on neither the keys' positions nor the object queries are added in the cross-attention.
    Self-attention keeps the object queries, for the footnote speaks of keys, which are the memory's. Arguments as
    :class:`AdditiveDecoderLayer`.

    Paper: §1, footnote 1 (DETR-R50, 50 epochs: 34.9 -> 34.0 AP, the paper's).
    """

    def build_attention(self, embed_dims: int, num_heads: int, dropout: float) -> tuple[nn.Module, nn.Module]:
        """The self-attention and the cross-attention of the layer at ``self.index``."""
        self_attention, additive = super().build_attention(embed_dims, num_heads, dropout)
        return self_attention, ContentCrossAttention(embed_dims, num_heads, dropout) if self.index > 0 else additive
