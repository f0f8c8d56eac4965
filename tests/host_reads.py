"""How often the host would wait for a GPU, counted on any device."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: values read one by one, and sizes that depend on values."""

    WAITING = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in self.WAITING
        return function(*args, **(kwargs or {}))
