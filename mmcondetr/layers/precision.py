"""Where mixed precision stops: reference points, boxes, matching and losses stay in float32 under autocast too."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager:
    """A context without autocast on the device of ``like``; what is computed in it has the precision of its inputs."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)
