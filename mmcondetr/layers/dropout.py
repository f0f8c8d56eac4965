"""Dropout that is quick on a CPU and keeps no mask for the backward pass.

torch draws one Bernoulli number an element on one core and keeps the mask in the precision of the activations. Here
one 64-bit random number decides four elements, and the backward pass draws the same numbers again from a saved seed, or
sees from the result what was dropped. On other devices and under torch.compile all of this is torch's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmcondetr.compat.compiling import is_compiling

_LEVELS = 1 << 16  # an element is dropped where a 16-bit random number is below dropout * 2**16


def applies(module: nn.Module, probability: float, x: Tensor) -> bool:
    """Whether ``module`` drops now, and with the functions of this file: on a CPU, where nothing is being compiled."""
    return module.training and probability > 0 and x.device.type == 'cpu' and not is_compiling()


def draw_seed() -> int:
    """A seed from torch's default generator, so that ``torch.manual_seed`` and checkpointing repeat what follows."""
    return int(torch.randint(1 << 62, ()))


def _threshold(probability: float) -> int:
    return min(round(probability * _LEVELS), _LEVELS - 1)


def draw_kept(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """1 where an element is kept and 0 where it is dropped, in the shape and type of ``like``."""
    count = like.numel()
    numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    least = _threshold(probability) - _LEVELS // 2  # int16 starts at -2**15
    return torch.ge(
        numbers.view(torch.int16)[:count].view(like.shape), least, out=torch.empty(like.shape, dtype=like.dtype)
    )


def gain(probability: float) -> float:
    """1 / the share of elements that is kept; the probability counts rounded to a multiple of 2**-16."""
    return _LEVELS / (_LEVELS - _threshold(probability))


class Dropout(nn.Dropout):
    """``nn.Dropout`` for (..., D) with a seed instead of a mask.

    Args:
        p: probability with which an element is zeroed, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x in training."""
        if applies(self, self.p, x):
            return _SeededDropout.apply(x, self.p, draw_seed())
        return F.dropout(x, self.p, self.training)

    def after_relu(self, x: Tensor) -> Tensor:
        """dropout(relu(x)), of which nothing is kept but the result."""
        if applies(self, self.p, x):
            return _ReLUDropout.apply(x, self.p, draw_seed())
        return F.dropout(F.relu_(x), self.p, self.training)


class _SeededDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, probability: float, seed: int) -> Tensor:
        ctx.probability, ctx.seed = probability, seed
        return _drop(x, probability, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        return _drop(gradient, ctx.probability, ctx.seed), None, None


class _ReLUDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, probability: float, seed: int) -> Tensor:
        result = _drop(x, probability, seed).clamp_(min=0)
        ctx.save_for_backward(result)
        ctx.probability = probability
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, result, 0).mul_(gain(ctx.probability)), None, None


def _drop(x: Tensor, probability: float, seed: int) -> Tensor:
    kept = draw_kept(x, probability, torch.Generator().manual_seed(seed))
    return kept.mul_(x).mul_(gain(probability))
