"""``torch.load`` that reads tensors and plain values, and runs nothing, on every supported torch.

mmengine calls ``torch.load`` without ``weights_only``. Where that defaults to True (torch >= 2.6) it cannot read back
its own checkpoints, and where it does not, a checkpoint can run code. :data:`SAFE_GLOBALS` is what a checkpoint may
hold besides tensors; :func:`torch_load` keeps to it on every torch.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import types
import zipfile
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer


def _history_statistic(owner: type, name: str) -> Callable:
    """Stand for ``getattr`` in checkpoints, where HistoryBuffer names its four statistics with it, and do only that."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f"a checkpoint may not ask for the attribute '{name}' of {owner!r}")
    return getattr(owner, name)


def _safe_globals() -> dict[str, Any]:
    found: dict[str, Any] = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'builtins.getattr': _history_statistic,
        'argparse.Namespace': argparse.Namespace,  # the command line, in the authors' checkpoints
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    for package in ('numpy.core', 'numpy._core'):  # numpy 1 writes the first, numpy 2 the second: either reads both
        found[f'{package}.multiarray._reconstruct'] = reconstruct
        found[f'{package}.multiarray.scalar'] = scalar
    for name in ('bool', 'uint8', 'int32', 'uint32', 'int64', 'float32', 'float64'):
        kind = type(np.dtype(name))
        found[f'{kind.__module__}.{kind.__qualname__}'] = kind
    return found


SAFE_GLOBALS: dict[str, Any] = _safe_globals()
"""What a checkpoint may name besides torch's own list: full path in the file -> what stands for it."""

# From 2.6 on torch.load defaults to weights_only=True and can be told what a path in the file stands for.
_TORCH_CHECKS_GLOBALS = tuple(map(int, re.findall(r'\d+', torch.__version__)[:2])) >= (2, 6)


def _codecs_encode(text: str, encoding: str) -> bytes:
    """How pickle protocol 2 writes bytes; codecs other than latin1 are not needed for that."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f"a checkpoint may not ask for the codec '{encoding}'")
    return text.encode('latin1')


# What torch >= 2.6 allows on its own and an older one does not: learning rate schedules and bytes need it.
_ALLOWED_BY_NEWER_TORCH = {'collections.Counter': Counter, 'builtins.set': set, '_codecs.encode': _codecs_encode}


class _RestrictedUnpickler(pickle.Unpickler):
    """Finds what torch's own weights-only loader and :data:`SAFE_GLOBALS` allow, and refuses the rest."""

    def find_class(self, module: str, name: str) -> Any:
        from torch._weights_only_unpickler import _get_allowed_globals

        path = f'builtins.{name}' if module == '__builtin__' else f'{module}.{name}'  # pickle protocol 2's name for it
        allowed = {**_get_allowed_globals(), **_ALLOWED_BY_NEWER_TORCH, **SAFE_GLOBALS}
        if path not in allowed:
            raise pickle.UnpicklingError(f'Unsupported global: {path} is not allowed in a checkpoint')
        return allowed[path]


def _restricted_pickle() -> types.ModuleType:
    module = types.ModuleType('mmcondetr_restricted_pickle')
    module.Unpickler = _RestrictedUnpickler
    module.load = lambda file, **options: _RestrictedUnpickler(file, **options).load()
    return module


def torch_load(path: str | os.PathLike, map_location: Any = None) -> Any:
    """``torch.load`` that runs no code from the file: it reads tensors, plain values and :data:`SAFE_GLOBALS`.

    Raises:
        pickle.UnpicklingError: the file names anything else, or is a TorchScript archive.
    """
    if _TORCH_CHECKS_GLOBALS:
        return torch.load(path, map_location=map_location, weights_only=True)
    # Before 2.6 weights_only=True knows no allow-list, and HistoryBuffer would be refused.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                raise pickle.UnpicklingError(f'{path} is a TorchScript archive, which holds code, and not a checkpoint')
    return torch.load(path, map_location=map_location, pickle_module=_restricted_pickle(), weights_only=False)


def register_safe_globals() -> None:
    """Let mmengine's own calls of ``torch.load`` read its checkpoints where torch refuses what it does not know."""
    if _TORCH_CHECKS_GLOBALS:
        torch.serialization.add_safe_globals([(value, path) for path, value in SAFE_GLOBALS.items()])
