"""The decoder of Conditional DETR (§3.3): layers of self-attention and conditional cross-attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmcondetr.layers import checkpointing
from mmcondetr.layers.dropout import Dropout
from mmcondetr.layers.feed_forward import FeedForward, xavier_linear
from mmcondetr.models.attention import (
    Among,
    ConditionalCrossAttention,
    FirstConditionalCrossAttention,
    Memory,
    SelfAttention,
)
from mmcondetr.registry import MODELS


class Queries(NamedTuple):
    """The decoder's queries: the object queries, or in training M of them (models/training).

    Attributes:
        object_query: (B or 1, M, D), or (B or 1, M, 4) anchor boxes.
        among: restricts which queries attend to each other in self-attention; None for all.
        content: (B, M, D), f before the first layer; None for the reference point module's.
        reference: (B, K, 2), logits of the reference points of the last K queries; None: all are the module's.
    """

    object_query: Tensor
    among: Among | None = None
    content: Tensor | None = None
    reference: Tensor | None = None


@MODELS.register_module()
class ConditionalDecoderLayer(nn.Module):
    """One layer in two steps, because CSQ-I predicts the spatial query from the first step's output.

    Self-attention gives c_q; conditional cross-attention with [c_q; p_q] and a feed-forward network give the new f.
    Each sublayer has dropout, a residual connection and LayerNorm.

    Args:
        embed_dims: D.
        num_heads: H.
        feedforward_channels: width of the feed-forward network.
        dropout: of attention weights, feed-forward and the three residual branches.
        activation: config of the feed-forward network's activation; ReLU if None.
        index: position in the decoder; layer 0 has its own cross-attention (§3.5).

    Paper: §3.1-3.2, eq. 3.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float = 0.1,
        activation: dict | None = None,
        index: int = 0,
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.index = index
        self.self_attn, self.cross_attn = self.build_attention(embed_dims, num_heads, dropout)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout, activation)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    def build_attention(self, embed_dims: int, num_heads: int, dropout: float) -> tuple[nn.Module, nn.Module]:
        """The self-attention and the cross-attention of the layer at ``self.index``."""
        cross_attention = FirstConditionalCrossAttention if self.index == 0 else ConditionalCrossAttention
        return SelfAttention(embed_dims, num_heads, dropout), cross_attention(embed_dims, num_heads, dropout)

    def check_spatial_query(self, spatial_query: nn.Module) -> None:
        """Raise a ValueError for a spatial query head that the layer cannot use; this one can use all."""

    def self_attend(self, f: Tensor, object_query: Tensor, *among: Among) -> Tensor:
        """First step: f (B, N, D), o_q (B or 1, N, D), optionally which queries see each other -> c_q (B, N, D)."""
        return self.norm1(f + self.dropout(self.self_attn(f, object_query, *among)))

    def cross_attend(self, c_q: Tensor, p_q: Tensor, memory: Memory, *object_query: Tensor) -> Tensor:
        """Second step: c_q (B, N, D), p_q (B or 1, N, D), in the first layer also o_q -> the next f (B, N, D)."""
        f = self.norm2(c_q + self.dropout(self.cross_attn(c_q, p_q, memory, *object_query)))
        return self.norm3(f + self.dropout(self.ffn(f)))


@MODELS.register_module()
class ConditionalDecoder(BaseModule):
    """A stack of conditional decoder layers that share one reference point module and one spatial query head.

    Args:
        num_layers: L.
        layer: config of one layer; ``index`` is set here.
        reference_point: config of the reference point module.
        spatial_query: config of the spatial query head.
        with_cp: recompute the layers' activations in the backward pass to save memory.
        init_cfg: mmengine's initialisation, applied after Xavier for every linear weight.

    Paper: §3.3.
    """

    def __init__(
        self,
        num_layers: int,
        layer: dict,
        reference_point: dict,
        spatial_query: dict,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp
        self.layers = nn.ModuleList(MODELS.build(dict(layer, index=index)) for index in range(num_layers))
        self.embed_dims = self.layers[0].embed_dims
        self.reference_point = MODELS.build(reference_point)
        self.spatial_query = MODELS.build(spatial_query)
        self.layers[0].check_spatial_query(self.spatial_query)
        self.norm = nn.LayerNorm(self.embed_dims)

    def init_weights(self) -> None:
        """Xavier for every linear weight, as in DETR."""
        xavier_linear(self)
        super().init_weights()

    def forward(
        self,
        object_query: Tensor,
        memory: Memory,
        among: Among | None = None,
        content: Tensor | None = None,
        given: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode every object query.

        Args:
            object_query: (B or 1, N, D), DETR's learned query position o_q, or (B or 1, N, 4), DAB-DETR's anchor
                boxes; 1 if all images share it.
            memory: what the queries attend to.
            among: restricts which queries attend to each other in self-attention; training only.
            content: (B, N, D), f before the first layer, overriding the reference point module's; training only.
            given: (B, K, 2), the reference points of the last K queries, logits; training only.

        Returns:
            - hidden states (L, B, N, D), normalised;
            - references (L, B, N, 2 or 4) that each layer's boxes are predicted from, logits (x, y) or
              (cx, cy, w, h).
        """
        points = () if given is None else (given,)
        f, position = self.reference_point.start(object_query, memory.content, content, *points)  # f = 0; s, p_s, eq. 5
        sets = () if among is None else (among,)
        hidden_states, references = [], []
        for i, layer in enumerate(self.layers):
            if i > 0:
                position = self.reference_point.move(position, f)
            reference, p_s, o_q = position.reference, position.p_s, position.object_query
            c_q = self._run(layer.self_attend, f, o_q, *sets)
            if i == 0:  # §3.5: f is still zero, so there is no transform, and o_q is added to the content
                f = self._run(layer.cross_attend, c_q, p_s, memory, o_q)
            else:
                p_q = self.spatial_query(f, c_q, p_s)  # eq. 6
                f = self._run(layer.cross_attend, c_q, p_q, memory)  # eq. 3
            hidden_states.append(f)
            references.append(reference.expand(*f.shape[:2], -1))
        return self.norm(torch.stack(hidden_states)), torch.stack(references)

    def _run(self, step: Callable[..., Tensor], *inputs: Tensor | Memory | Among) -> Tensor:
        return checkpointing.run(step, *inputs, recompute=self.with_cp)
