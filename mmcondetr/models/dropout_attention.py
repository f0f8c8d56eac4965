"""Attention with dropout on a CPU, in chunks of queries, so that no (N, S) matrix of attention weights is ever kept.

torch's fused kernels drop attention weights on a GPU only: on a CPU ``scaled_dot_product_attention`` with dropout keeps
every weight, its mask and its gradient, and draws the mask one Bernoulli number at a time. Here each chunk is small
enough to stay in the processor's cache, the backward pass computes it again from the queries and keys, and one 64-bit
random number decides four weights. Memory grows with N + S instead of N * S.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Bytes of attention weights in one chunk; two or three such buffers are to fit a core's cache.
CHUNK_BYTES = 1 << 20
_LEVELS = 1 << 16  # a weight is dropped where a 16-bit random number is below dropout * 2**16


def dropout_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(width of q)), with dropout on the weights, times v.

    The probability is rounded to a multiple of 2**-16, and what is kept is scaled by what was really used. The random
    numbers follow from torch's default generator, so that ``torch.manual_seed`` and checkpointing repeat them.

    Args:
        q: (B, H, N, width).
        k: (B, H, S, width).
        v: (B, H, S, width of v), which may be another one.
        dropout: probability with which a weight is zeroed, in [0, 1).
        mask: (B, S), True where a key is padding; None where nothing is padded.

    Returns:
        (B, H, N, width of v), computed in float32 where the inputs are narrower.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=dtype).masked_fill_(mask, float('-inf'))
        bias = bias.repeat_interleave(q.shape[1], dim=0)[:, None]  # (B * H, 1, S)
    seed = int(torch.randint(1 << 62, ()))
    merged = (x.to(dtype).flatten(0, 1) for x in (q, k, v))  # (B * H, tokens, width)
    return _DropoutAttention.apply(*merged, bias, dropout, seed).unflatten(0, q.shape[:2]).to(q.dtype)


class _DropoutAttention(torch.autograd.Function):
    """Saves q, k, v, the output and one seed; everything else is computed twice."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, seed: int) -> Tensor:
        attended = q.new_empty(*q.shape[:2], v.shape[-1])
        with torch.autocast('cpu', enabled=False):
            for heads, rows, weights, keep in _chunks(q, k, bias, dropout, seed):
                attended[heads, rows] = torch.bmm(weights.mul_(keep), v[heads])
        attended *= _gain(dropout)
        ctx.save_for_backward(q, k, v, bias, attended)
        ctx.dropout, ctx.seed = dropout, seed
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        q, k, v, bias, attended = ctx.saved_tensors
        scale = q.shape[-1]**-0.5
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        inner = (gradient * attended).sum(-1, keepdim=True)  # (B * H, N, 1), what softmax's gradient subtracts
        gradient = gradient * _gain(ctx.dropout)
        with torch.autocast('cpu', enabled=False):
            for heads, rows, weights, keep in _chunks(q, k, bias, ctx.dropout, ctx.seed):
                slope = torch.bmm(gradient[heads, rows], v[heads].transpose(1, 2))  # of the kept weights
                slope.mul_(keep).sub_(inner[heads, rows]).mul_(weights)  # of the logits
                dv[heads].baddbmm_(weights.mul_(keep).transpose(1, 2), gradient[heads, rows])
                dq[heads, rows] = torch.bmm(slope, k[heads]).mul_(scale)
                dk[heads].baddbmm_(slope.transpose(1, 2), q[heads, rows], alpha=scale)
        return dq, dk, dv, None, None, None


def _threshold(dropout: float) -> int:
    return min(round(dropout * _LEVELS), _LEVELS - 1)


def _gain(dropout: float) -> float:
    """1 / share of the weights that is kept."""
    return _LEVELS / (_LEVELS - _threshold(dropout))


def _chunks(q: Tensor, k: Tensor, bias: Tensor | None, dropout: float, seed: int):
    """Yield (heads, rows, attention weights, 0 or 1) for some queries of some heads at a time, the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    (total, num_queries), num_keys = q.shape[:2], k.shape[1]
    least = _threshold(dropout) - _LEVELS // 2  # int16 starts at -2**15
    q, keys = q * q.shape[-1]**-0.5, k.transpose(1, 2)
    fitting = max(1, CHUNK_BYTES // (4 * num_keys))  # rows
    num_heads, num_rows = max(1, min(total, fitting // num_queries)), min(fitting, num_queries)
    for head in range(0, total, num_heads):
        heads = slice(head, head + num_heads)
        for row in range(0, num_queries, num_rows):
            rows = slice(row, row + num_rows)
            weights = torch.bmm(q[heads, rows], keys[heads])  # (heads, rows, S)
            if bias is not None:
                weights += bias[heads]
            weights = torch.softmax(weights, -1)
            count = weights.numel()
            numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-2**63, None, generator=generator)
            keep = torch.ge(numbers.view(torch.int16)[:count].view_as(weights), least, out=torch.empty_like(weights))
            yield heads, rows, weights, keep
