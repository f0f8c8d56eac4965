"""Dropout that is fast on a CPU and stores no mask for the backward pass.

torch draws one Bernoulli number per element on a single core and stores the mask in the activations' dtype. Here one
64-bit random number decides four elements, and the backward pass either draws the same numbers again from a saved seed
or infers the mask from the result. On other devices and under torch.compile, torch's own dropout is used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmcondetr.compat.compiling import is_compiling

_LEVELS = 1 << 16  # an element is dropped if its 16-bit random number is below dropout * 2**16


def uses_seeded_dropout(module: nn.Module, probability: float, x: Tensor) -> bool:
    """Whether ``module`` is to drop elements now, with this file's kernels: on a CPU and not under torch.compile."""
    return module.training and probability > 0 and x.device.type == 'cpu' and not is_compiling()


def draw_seed() -> int:
    """A seed from torch's default generator, so that ``torch.manual_seed`` and checkpointing reproduce the mask."""
    return int(torch.randint(1 << 62, ()))


def _threshold(probability: float) -> int:
    return min(round(probability * _LEVELS), _LEVELS - 1)


def draw_mask(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """The mask, in the shape and dtype of ``like``: 1 where an element is kept, 0 where it is dropped."""
    count = like.numel()
    numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    least = _threshold(probability) - _LEVELS // 2  # int16 starts at -2**15
    return torch.ge(
        numbers.view(torch.int16)[:count].view(like.shape), least, out=torch.empty(like.shape, dtype=like.dtype)
    )


def keep_scale(probability: float) -> float:
    """1 / the fraction of kept elements, with the probability rounded to a multiple of 2**-16."""
    return _LEVELS / (_LEVELS - _threshold(probability))


class Dropout(nn.Dropout):
    """``nn.Dropout`` for (..., D) that stores a seed instead of a mask.

    Args:
        p: probability of zeroing an element, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x in training."""
        if uses_seeded_dropout(self, self.p, x):
            return _SeededDropout.apply(x, self.p, draw_seed())
        return F.dropout(x, self.p, self.training)

    def after_relu(self, x: Tensor) -> Tensor:
        """dropout(relu(x)), storing only the result for the backward pass."""
        if uses_seeded_dropout(self, self.p, x):
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
        return torch.ops.aten.threshold_backward(gradient, result, 0).mul_(keep_scale(ctx.probability)), None, None


def _drop(x: Tensor, probability: float, seed: int) -> Tensor:
    mask = draw_mask(x, probability, torch.Generator().manual_seed(seed))
    return mask.mul_(x).mul_(keep_scale(probability))
