"""A linear layer that uses the faster of torch's two CPU libraries.

On a CPU, torch passes float32 matrix products to its BLAS (MKL) and convolutions to oneDNN. A linear layer is a 1 x 1
convolution over its tokens. On non-Intel CPUs MKL uses no AVX-512 kernels, but oneDNN does: there the convolution takes
half the time, forward and backward (figures: docs/performance.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcondetr.compat.compiling import is_compiling

_BOTH_LIBRARIES = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # mkldnn is oneDNN
_MIN_MULTIPLY_ADDS = 8_000_000  # below, the call overhead dominates


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (..., in), weight (out, in), bias (out,) -> x weight^T + bias (..., out)."""
    if not _use_convolution(x, weight):
        return F.linear(x, weight, bias)
    tokens = x.reshape(1, 1, -1, x.shape[-1])  # (batch, height, width, channels): channels-last, no copy
    out = F.conv2d(tokens.permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def _use_convolution(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != 'cpu' or x.dtype != torch.float32 or is_compiling():
        return False  # leave the choice to the compiler
    return _BOTH_LIBRARIES and x.numel() * weight.shape[0] >= _MIN_MULTIPLY_ADDS


class Linear(nn.Linear):
    """``nn.Linear`` computed by :func:`linear`; parameters, initialisation and results are unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)
