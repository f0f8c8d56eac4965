"""Mixed precision on a CPU, which mmengine's AmpOptimWrapper does not support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmcondetr.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """mmengine's OptimWrapper with the forward pass under bfloat16 autocast; weights and gradients stay float32.

    bfloat16 has float32's range, so no loss scale is needed. Arguments as in mmengine.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a training step's forward pass."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
