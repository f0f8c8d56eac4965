"""Attention in bfloat16 on a CPU as matrix products and a softmax, in chunks that fit the cache.

torch's fused kernel takes as long in bfloat16 as in float32 on a CPU. oneDNN, which computes matrix products in
bfloat16, uses the processor's instructions for it (figures: docs/performance.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcondetr.compat.compiling import is_compiling

#: Bytes of attention weights in one chunk.
CHUNK_BYTES = 4 << 20


def is_faster(q: Tensor) -> bool:
    """Whether :func:`explicit_attention` is faster for these queries than torch's fused kernel, and allowed."""
    if q.dtype != torch.bfloat16 or q.device.type != 'cpu' or torch.is_grad_enabled() or is_compiling():
        return False
    return getattr(torch.cpu, '_is_avx512_bf16_supported', bool)()  # older versions of torch lack it


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(width of q)) v, without gradients.

    Args:
        q: (B, H, N, width).
        k: (B, H, S, width).
        v: (B, H, S, width of v), which may differ from q's.
        mask: (B, S), True where a key is padding; None if nothing is padded.

    Returns:
        (B, H, N, width of v).
    """
    shape, keys = q.shape[:3], k.shape[-2]
    bias = q.new_zeros(1, 1, 1).expand(q.shape[0] * q.shape[1], 1, 1)
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill_(mask, float('-inf'))
        bias = bias.repeat_interleave(q.shape[1], dim=0)[:, None]  # (B * H, 1, S)
    q, k, v = (x.flatten(0, 1) for x in (q, k.transpose(-2, -1), v))
    attended = q.new_empty(*q.shape[:2], v.shape[-1])
    rows = min(shape[2], max(1, CHUNK_BYTES // (keys * q.element_size())))
    heads = max(1, CHUNK_BYTES // (rows * keys * q.element_size()))
    scale = q.shape[-1] ** -0.5
    with torch.autocast('cpu', enabled=False):
        for head in (slice(first, first + heads) for first in range(0, len(q), heads)):
            for row in (slice(first, first + rows) for first in range(0, shape[2], rows)):
                logits = torch.baddbmm(bias[head], q[head, row], k[head], alpha=scale)
                attended[head, row] = torch.bmm(logits.softmax(-1), v[head])
    return attended.unflatten(0, shape[:2])
