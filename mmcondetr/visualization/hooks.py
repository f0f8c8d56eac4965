"""Forward pre-hooks that capture the inputs of attention modules, for each supported kind of detector."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmdet.models.layers.transformer.detr_layers import DetrTransformerDecoder, DetrTransformerDecoderLayer
from torch import Tensor, nn

from mmcondetr.errors import UserError
from mmcondetr.models.ablations.additive import AdditiveCrossAttention
from mmcondetr.models.attention import DotProductAttention
from mmcondetr.visualization.maps import AttentionParts

#: (attention module, callback that receives its parts) -> handle of the attached hook.
AttachHook = Callable[[nn.Module, Callable[[AttentionParts], None]], torch.utils.hooks.RemovableHandle]


def choose_hook(model: nn.Module) -> AttachHook:
    """The function that attaches hooks to this detector's attention modules.

    Raises:
        UserError: the detector's attention is of an unknown kind.
    """
    decoder = getattr(model, 'decoder', None)
    layers = list(getattr(decoder, 'layers', None) or ())
    ours = [
        layer
        for layer in layers
        if isinstance(getattr(getattr(layer, 'cross_attn', None), 'attention', None), DotProductAttention)
    ]
    if layers and len(ours) == len(layers):
        return _hook_ours
    if (
        layers
        and type(decoder) is DetrTransformerDecoder
        and all(type(layer) is DetrTransformerDecoderLayer for layer in layers)
    ):
        return _hook_detr
    name = f'{type(model).__module__}.{type(model).__name__}'
    hint = ''
    if name.startswith('mmdet.') and type(model).__name__ in ('ConditionalDETR', 'DABDETR'):
        hint = f" Its weights load into type='mmcondetr.{type(model).__name__}', which is."
    raise UserError(
        f"Attention of the model '{name}' cannot be recorded: supported are mmcondetr's detectors and "
        f"mmdet's DETR.{hint}"
    )


def _hook_ours(module: nn.Module, keep: Callable[[AttentionParts], None]):
    """Our attention modules pass their parts to :class:`DotProductAttention` before concatenation."""
    if isinstance(module, AdditiveCrossAttention):
        return _hook_additive(module, keep)

    def capture(attention: DotProductAttention, args: tuple, kwargs: dict) -> None:
        names = ('queries', 'keys', 'value', 'mask')
        given = {**dict(zip(names, args)), **kwargs}
        queries, keys = (tuple(part.detach() for part in given[name]) for name in ('queries', 'keys'))
        width = sum(part.shape[-1] for part in queries) // attention.num_heads
        keep(AttentionParts(queries, keys, given.get('mask'), attention.num_heads, width**-0.5))

    return module.attention.register_forward_pre_hook(capture, with_kwargs=True)


def _hook_additive(module: AdditiveCrossAttention, keep: Callable[[AttentionParts], None]):
    """Our version of DETR's cross-attention receives contents and positions, and adds them itself."""

    def capture(attention: AdditiveCrossAttention, args: tuple, kwargs: dict) -> None:
        c_q, p_q, memory = (*args, *kwargs.values())[:3]
        p_q, p_k = attention.positions(p_q, memory)
        (w_q, w_k, _), (b_q, b_k, _) = attention.in_proj.weight.chunk(3), attention.in_proj.bias.chunk(3)
        num_heads = attention.attention.num_heads
        p_k = p_k.expand_as(memory.content)
        keep(_split_sum(c_q + p_q, memory.content, p_k, (w_q, b_q, w_k, b_k), memory.mask, num_heads))

    return module.register_forward_pre_hook(capture, with_kwargs=True)


def _hook_detr(module: MultiheadAttention, keep: Callable[[AttentionParts], None]):
    """DETR adds positions before projecting: q = W_q (c_q + o_q), k = W_k c_k + W_k p_k, so that q . k splits, too.

    The content map is softmax((c_q + o_q) . c_k), the spatial map softmax((c_q + o_q) . p_k).

    Paper: §3.4, the maps of Figure 1 for DETR.
    """

    def capture(attention: MultiheadAttention, args: tuple, kwargs: dict) -> None:
        names = ('query', 'key', 'value', 'identity', 'query_pos', 'key_pos', 'attn_mask', 'key_padding_mask')
        given = {**dict(zip(names, args)), **kwargs}
        (w_q, w_k, _), (b_q, b_k, _) = attention.attn.in_proj_weight.chunk(3), attention.attn.in_proj_bias.chunk(3)
        keep(
            _split_sum(
                given['query'] + given['query_pos'],
                given['key'],
                given['key_pos'],
                (w_q, b_q, w_k, b_k),
                given.get('key_padding_mask'),
                attention.num_heads,
            )
        )

    return module.register_forward_pre_hook(capture, with_kwargs=True)


def _split_sum(
    queries: Tensor,
    content: Tensor,
    position: Tensor,
    projections: tuple[Tensor, ...],
    mask: Tensor | None,
    num_heads: int,
) -> AttentionParts:
    """The parts of q . W_k (content + position)."""
    w_q, b_q, w_k, b_k = projections
    with torch.no_grad():
        q = F.linear(queries, w_q, b_q)
        keys = (F.linear(content, w_k, b_k), F.linear(position, w_k))
    return AttentionParts((q, q), keys, mask, num_heads, (q.shape[-1] // num_heads) ** -0.5, additive=True)
