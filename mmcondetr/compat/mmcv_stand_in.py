"""``import mmdet.models`` without a compiler: a stand-in for ``mmcv._ext``, the compiled half of mmcv.

mmcv-lite lacks that module, but mmdet imports it. The stand-in is used only if the real module is missing. Its ops
raise a clear error when called, except those that a DETR needs on a GPU, which are implemented in PyTorch
(mmcv_ops.py).
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

from mmcondetr.errors import UserError


class MissingMMCVOpError(UserError):
    """A compiled mmcv op was called where only mmcv-lite is installed."""


class _MMCVExtStandIn(types.ModuleType):
    """Provides every op; those without a PyTorch implementation raise :class:`MissingMMCVOpError` when called."""

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)
        from mmcondetr.compat.mmcv_ops import OPS

        def missing_op(*args: Any, **kwargs: Any) -> None:
            raise MissingMMCVOpError(
                f"mmcv op '{name}' is a compiled op that mmcv-lite does not have: install the full mmcv "
                '(pip uninstall mmcv-lite; pip install "mmcondetr[full]") to use it.'
            )

        missing_op.__name__ = name
        return OPS.get(name, missing_op)


def install_mmcv_ext() -> bool:
    """Make ``import mmdet.models`` work with mmcv-lite; returns whether the stand-in is in place."""
    name = 'mmcv._ext'
    if name in sys.modules:
        return isinstance(sys.modules[name], _MMCVExtStandIn)
    if importlib.util.find_spec(name) is not None:
        return False
    module = _MMCVExtStandIn(name)
    # mmcv calls pkgutil.find_loader for this module, which raises ValueError without a spec that has a loader.
    module.__spec__ = importlib.machinery.ModuleSpec(
        name, loader=importlib.machinery.BuiltinImporter, origin='mmcondetr.compat'
    )
    sys.modules[name] = module
    return True


def check_one_mmcv() -> None:
    """Warn if mmcv and mmcv-lite are both installed: they share a folder, so removing one breaks the other."""
    try:
        versions = [f'{name} {importlib.metadata.version(name)}' for name in ('mmcv', 'mmcv-lite')]
    except importlib.metadata.PackageNotFoundError:
        return
    warnings.warn(
        f'{versions[0]} and {versions[1]} are both installed and overwrite each other in one folder (mmcv/). '
        'Keep one: "pip uninstall mmcv mmcv-lite", then "pip install mmcondetr[lite]" (no compiled ops) or '
        '"pip install mmcondetr[full]".',
        stacklevel=3,
    )
