"""Attention with dropout on a CPU, in chunks of queries, so that no (N, S) matrix of attention weights is ever stored.

torch's fused kernels support dropout on a GPU only. On a CPU, ``scaled_dot_product_attention`` with dropout stores all
weights, their mask and gradient, and draws the mask one Bernoulli number at a time. Here each chunk is small enough to
stay in the CPU cache, and the backward pass recomputes it from the queries and keys, so memory grows with N + S instead
of N * S. The random numbers come from dropout.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmcondetr.layers.dropout import draw_mask, draw_seed, keep_scale

#: Bytes of attention weights in one chunk; two or three such buffers should fit into a core's cache.
CHUNK_BYTES = 1 << 20


def dropout_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(width of q)), with dropout on the weights, times v.

    Args:
        q: (B, H, N, width).
        k: (B, H, S, width).
        v: (B, H, S, width of v), which may differ from q's.
        dropout: probability of zeroing a weight, in [0, 1).
        mask: (B, S), True where a key is padding; None if nothing is padded.

    Returns:
        (B, H, N, width of v), computed in float32 or wider.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=dtype).masked_fill_(mask, float('-inf'))
        bias = bias.repeat_interleave(q.shape[1], dim=0)[:, None]  # (B * H, 1, S)
    merged = (x.to(dtype).flatten(0, 1) for x in (q, k, v))  # (B * H, tokens, width)
    return _DropoutAttention.apply(*merged, bias, dropout, draw_seed()).unflatten(0, q.shape[:2]).to(q.dtype)


class _DropoutAttention(torch.autograd.Function):
    """Saves q, k, v, the output and one seed; everything else is recomputed."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, seed: int) -> Tensor:
        attended = q.new_empty(*q.shape[:2], v.shape[-1])
        with torch.autocast('cpu', enabled=False):
            for heads, rows, weights, keep in _chunks(q, k, bias, dropout, seed):
                attended[heads, rows] = torch.bmm(weights.mul_(keep), v[heads])
        attended *= keep_scale(dropout)
        ctx.save_for_backward(q, k, v, bias, attended)
        ctx.dropout, ctx.seed = dropout, seed
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        q, k, v, bias, attended = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        inner = (gradient * attended).sum(-1, keepdim=True)  # (B * H, N, 1), subtracted in softmax's gradient
        gradient = gradient * keep_scale(ctx.dropout)
        with torch.autocast('cpu', enabled=False):
            for heads, rows, weights, keep in _chunks(q, k, bias, ctx.dropout, ctx.seed):
                slope = torch.bmm(gradient[heads, rows], v[heads].transpose(1, 2))  # of the kept weights
                slope.mul_(keep).sub_(inner[heads, rows]).mul_(weights)  # of the logits
                dv[heads].baddbmm_(weights.mul_(keep).transpose(1, 2), gradient[heads, rows])
                dq[heads, rows] = torch.bmm(slope, k[heads]).mul_(scale)
                dk[heads].baddbmm_(slope.transpose(1, 2), q[heads, rows], alpha=scale)
        return dq, dk, dv, None, None, None


def _chunks(q: Tensor, k: Tensor, bias: Tensor | None, dropout: float, seed: int):
    """Yield (heads, rows, attention weights, dropout mask) chunk by chunk, reproducibly for a seed."""
    generator = torch.Generator().manual_seed(seed)
    (total, num_queries), num_keys = q.shape[:2], k.shape[1]
    q, keys = q * q.shape[-1] ** -0.5, k.transpose(1, 2)
    max_rows = max(1, CHUNK_BYTES // (4 * num_keys))
    num_heads, num_rows = max(1, min(total, max_rows // num_queries)), min(max_rows, num_queries)
    for head in range(0, total, num_heads):
        heads = slice(head, head + num_heads)
        for row in range(0, num_queries, num_rows):
            rows = slice(row, row + num_rows)
            weights = torch.bmm(q[heads, rows], keys[heads])  # (heads, rows, S)
            if bias is not None:
                weights += bias[heads]
            weights = torch.softmax(weights, -1)
            yield heads, rows, weights, draw_mask(weights, dropout, generator)
