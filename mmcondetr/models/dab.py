"""DAB-DETR's additions to Conditional DETR's decoder (Liu et al., ICLR 2022, arXiv 2201.12329).

A query is an anchor box (cx, cy, w, h) instead of an embedding. :class:`AnchorBoxes` replaces the reference point in
:class:`~mmcondetr.models.decoder.ConditionalDecoder`: it computes the object query from the box, modulates p_s by the
box size, and refines the box after each layer. The layers, the spatial query p_q = T(f) p_s and the head are
Conditional DETR's. In the encoder, the content scales the positions (:class:`ScaledPositionEncoder`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.layers import MLP
from torch import Tensor, nn

from mmcondetr.layers import checkpointing
from mmcondetr.layers.precision import full_precision
from mmcondetr.models.encoder import TransformerEncoder
from mmcondetr.models.positional import sine_embed
from mmcondetr.registry import MODELS

_MIN_LOG = math.log(1e-3)  # lower bound of log x and log (1 - x)


def clamp_logits(logits: Tensor) -> Tensor:
    """Soft-clamp logits to about +-log(1000): the authors' ``inverse_sigmoid(sigmoid(logits), eps=1e-3)``.

    They apply it wherever a box is refined or predicted from, so that logits cannot grow without bound.
    """
    return F.logsigmoid(logits).clamp(min=_MIN_LOG) - F.logsigmoid(-logits).clamp(min=_MIN_LOG)


class AnchorPosition(NamedTuple):
    """:class:`~mmcondetr.models.reference.Position` of anchor boxes.

    Attributes:
        reference: (B or 1, N, 4), clamped logits (cx, cy, w, h) that boxes are predicted from.
        p_s: (B or 1, N, D), the embedding of the centre, modulated by the size.
        object_query: (B or 1, N, D), computed from the whole box.
        origin: ``reference`` detached from the earlier layers; the next layer refines it.
    """

    reference: Tensor
    p_s: Tensor
    object_query: Tensor
    origin: Tensor


@MODELS.register_module()
class AnchorBoxes(nn.Module):
    """Queries are anchor boxes that each decoder layer refines.

    The object query is P_q = MLP(PE(x, y, w, h)). p_s is the embedding of (x, y), its x half times w_ref / w and its y
    half times h_ref / h with (w_ref, h_ref) = sigmoid(MLP(f)), so that the attention of a wide box is wide. As
    in the authors' code, boxes are embedded with temperature 10000, the keys' positions with 20.

    Args:
        embed_dims: D.
        fixed_xy: initialise the centres uniformly over the image and do not train them. (The authors intend this, but
            ``weight.data[:, :2].requires_grad = False`` in their code has no effect.)

    Paper: arXiv 2201.12329 §4.2 (queries), §4.3 (update), §4.4 (size modulation); fixed x, y: its authors' README.
    """

    def __init__(self, embed_dims: int, fixed_xy: bool = False) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.fixed_xy = fixed_xy
        self.query_predictor = MLP(2 * embed_dims, embed_dims, embed_dims, 2)
        self.size_predictor = MLP(embed_dims, embed_dims, 2, 2)

    def query_embedding(self, num_queries: int) -> nn.Embedding:
        """The learned anchor boxes, weight (N, 4): logits of (cx, cy, w, h), fractions of the image."""
        anchors = nn.Embedding(num_queries, 4)
        if self.fixed_xy:
            nn.init.uniform_(anchors.weight[:, :2])
            anchors.weight.data[:, :2] = torch.logit(anchors.weight.data[:, :2], eps=1e-3)
        return anchors

    def use_head(self, head: nn.Module) -> None:
        """Called once: anchors are refined by the head's box MLP, which remains registered in the head only."""
        self.box_embed = head.box_embed.__call__

    def forward(self, anchors: Tensor) -> Tensor:
        """The first layer's boxes, logits: anchors (1, N, 4) -> (1, N, 4)."""
        if self.fixed_xy:
            anchors = torch.cat((anchors[..., :2].detach(), anchors[..., 2:]), dim=-1)
        return anchors

    def start(self, anchors: Tensor, memory: Tensor, content: Tensor | None = None) -> tuple[Tensor, AnchorPosition]:
        """Before the first layer: anchors (B or 1, N, 4), memory (B, S, D) -> f (B, N, D) and the position.

        f is :meth:`content` unless ``content`` (B, N, D) is given.
        """
        boxes = self(anchors)
        f = self.content(anchors.shape[1], memory).expand(memory.shape[0], -1, -1) if content is None else content
        return f, self._position(boxes, boxes, f)

    def content(self, num_anchors: int, memory: Tensor) -> Tensor:
        """f before the first layer, in the memory's dtype: zeros (1, N, D)."""
        return memory.new_zeros(1, num_anchors, self.embed_dims)

    def move(self, position: AnchorPosition, f: Tensor) -> AnchorPosition:
        """Refine the boxes with the head's box MLP, given the last layer's output f (B, N, D)."""
        with full_precision(f):
            offsets = self.box_embed(f.to(self.size_predictor.layers[0].weight.dtype)).float()
        boxes = offsets + position.origin  # (B, N, 4)
        return self._position(boxes, boxes.detach(), f)

    def _position(self, reference: Tensor, origin: Tensor, f: Tensor) -> AnchorPosition:
        boxes = origin.sigmoid()
        embedding = sine_embed(boxes, self.embed_dims)  # (B or 1, N, 2 D): y, x, w, h
        scale = self.size_predictor(f).float().sigmoid() / boxes[..., 2:]  # (B, N, 2): w_ref / w, h_ref / h
        p_s = embedding[..., : self.embed_dims].unflatten(-1, (2, -1)) * scale.flip(-1).unsqueeze(-1)
        object_query = self.query_predictor(embedding.to(f.dtype))
        return AnchorPosition(clamp_logits(reference), p_s.flatten(-2).to(f.dtype), object_query, clamp_logits(origin))


@MODELS.register_module()
class LabelledAnchorBoxes(AnchorBoxes):
    """Anchor boxes with a label as content: [embedding of 'unknown'; 0] for DN-DETR's matching queries.

    Denoising queries have [embedding of a class; 1] instead (models/training/denoising_anchors.py).

    Args:
        embed_dims: D.
        fixed_xy: as in :class:`AnchorBoxes`.

    Paper: arXiv 2203.01305, §3.4.
    """

    def __init__(self, embed_dims: int, fixed_xy: bool = False) -> None:
        super().__init__(embed_dims, fixed_xy)
        self.unknown = nn.Embedding(1, embed_dims - 1)

    def unlabelled(self) -> Tensor:
        """f of every matching query before the first layer: (1, 1, D)."""
        return F.pad(self.unknown.weight[None], (0, 1))

    def content(self, num_anchors: int, memory: Tensor) -> Tensor:
        """The same (1, N, D) for all anchors, in the memory's dtype."""
        return self.unlabelled().to(memory.dtype).expand(-1, num_anchors, -1)


@MODELS.register_module()
class PatternAnchorBoxes(AnchorBoxes):
    """Anchor boxes combined with P learned content embeddings each: P * N queries, pattern by pattern.

    Args:
        embed_dims: D.
        num_patterns: P.
        fixed_xy: as in :class:`AnchorBoxes`.

    Raises:
        ValueError: num_patterns is less than 1.

    Paper: arXiv 2201.12329, Table 2 (the models marked with *); the patterns are Anchor DETR's.
    """

    def __init__(self, embed_dims: int, num_patterns: int, fixed_xy: bool = False) -> None:
        super().__init__(embed_dims, fixed_xy)
        if num_patterns < 1:
            raise ValueError(
                f'PatternAnchorBoxes: num_patterns must be at least 1, got {num_patterns}; or use AnchorBoxes'
            )
        self.patterns = nn.Embedding(num_patterns, embed_dims)

    def forward(self, anchors: Tensor) -> Tensor:
        """The first layer's boxes, logits: anchors (1, N, 4) -> (1, P * N, 4)."""
        return super().forward(anchors).repeat(1, self.patterns.num_embeddings, 1)

    def content(self, num_anchors: int, memory: Tensor) -> Tensor:
        """The patterns (1, P * N, D), each repeated for all anchors."""
        return self.patterns.weight.repeat_interleave(num_anchors, dim=0)[None].to(memory.dtype)


@MODELS.register_module()
class ScaledPositionEncoder(TransformerEncoder):
    """An encoder that scales positions by the content: position * MLP(tokens), one MLP for all layers.

    Arguments as in :class:`TransformerEncoder`, and D (``embed_dims``).

    Paper: arXiv 2201.12329; the encoder's ``query_scale`` in the authors' code.
    """

    def __init__(
        self, num_layers: int, layer: dict, embed_dims: int, with_cp: bool = False, init_cfg: dict | None = None
    ) -> None:
        super().__init__(num_layers, layer, with_cp, init_cfg)
        self.position_scale = MLP(embed_dims, embed_dims, embed_dims, 2)

    def forward(self, tokens: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """See :meth:`TransformerEncoder.forward`."""
        for layer in self.layers:
            scaled = position * self.position_scale(tokens)
            tokens = checkpointing.run(layer, tokens, scaled, mask, recompute=self.with_cp)
        return tokens
