"""Activation checkpointing: save memory at the cost of a second forward pass. Enabled by ``with_cp``, as in mmdet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def run(function: Callable[..., Any], *inputs: Any, recompute: bool) -> Any:
    """``function(*inputs)``; with ``recompute``, its activations are recomputed in the backward pass."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)
