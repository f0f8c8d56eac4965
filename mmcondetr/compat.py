"""What mmdet 3.3, mmengine 0.10 and mmcv-lite 2.1 need to work together with today's PyTorch: nothing else lives here.

* mmdet imports ``mmcv._ext``, the compiled half of mmcv, which mmcv-lite lacks. :func:`install_mmcv_ext` puts a
  stand-in there whose ops raise a clear error when they are called, and steps aside where the real one exists.
* mmengine refuses ``_base_ = 'mmcondetr::...'`` unless its ``MODULE2PACKAGE`` table names the package, and then finds
  the configs of a wheel only: :func:`name_package`.
* mmengine calls ``torch.load`` without ``weights_only``. Where that defaults to True (torch >= 2.6) it cannot read back
  its own checkpoints, and where it does not, a checkpoint can run code. :data:`SAFE_GLOBALS` is what a checkpoint may
  hold besides tensors; :func:`torch_load` keeps to it on every torch.
* torch 2.1 and 2.2 have :func:`is_compiling` in another place.
* mmdet's DetInferencer knows the step of a pipeline that reads an image by mmcv's name only: :func:`teach_inferencer`.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import pickle
import re
import sys
import types
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

if hasattr(torch.compiler, 'is_compiling'):
    from torch.compiler import is_compiling as is_compiling
else:  # torch 2.1 and 2.2
    from torch._dynamo import is_compiling as is_compiling

class MissingMMCVOpError(RuntimeError):
    """A compiled mmcv op was called where only mmcv-lite is installed."""


class _MMCVExtStandIn(types.ModuleType):
    """Has every op that is asked for; those without a PyTorch version raise :class:`MissingMMCVOpError` when called."""

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)
        from mmcondetr.mmcv_ops import OPS

        def missing_op(*args: Any, **kwargs: Any) -> None:
            raise MissingMMCVOpError(
                f"mmcv op '{name}' is compiled, and mmcv-lite does not have it: install the full mmcv "
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
    # mmcv asks pkgutil.find_loader for this module: without a spec that names some loader it gets a ValueError.
    module.__spec__ = importlib.machinery.ModuleSpec(
        name, loader=importlib.machinery.BuiltinImporter, origin='mmcondetr.compat'
    )
    sys.modules[name] = module
    return True


def check_one_mmcv() -> None:
    """Warn where mmcv and mmcv-lite are both installed: they share one folder, and removing one breaks the other."""
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


def config_root() -> Path:
    """Where our configs are: in the installed package where mim looks for them, or beside it in a source checkout."""
    package = Path(__file__).resolve().parent
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package.parent / 'configs'


def name_package() -> None:
    """Let configs inherit from ``mmcondetr::some/config.py``, from an installed package and from a source checkout."""
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['mmcondetr'] = 'mmcondetr'
    of_mmengine = Config._get_cfg_path
    if getattr(of_mmengine, 'knows_mmcondetr', False):
        return

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        # mmengine asks pkg_resources, which finds neither an editable install nor the configs of a checkout.
        scope, mark, path = cfg_path.partition('::')
        if mark and scope == 'mmcondetr' and (config_root() / path).is_file():
            return str(config_root() / path), scope
        return of_mmengine(cfg_path, filename)

    get_cfg_path.knows_mmcondetr = True
    Config._get_cfg_path = staticmethod(get_cfg_path)


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


def teach_inferencer() -> None:
    """Let DetInferencer find ``mmcondetr.LoadImage`` in a test pipeline, where it looks for mmcv's name only."""
    from mmdet.apis import DetInferencer

    of_mmdet = DetInferencer._get_transform_idx
    if getattr(of_mmdet, 'knows_mmcondetr', False):
        return

    def get_transform_idx(self: Any, pipeline: list, name: Any) -> int:
        ours = ('mmcondetr.LoadImage',) if 'LoadImageFromFile' in name else ()
        return of_mmdet(self, pipeline, (*((name,) if isinstance(name, str) else name), *ours))

    get_transform_idx.knows_mmcondetr = True
    DetInferencer._get_transform_idx = get_transform_idx


def prepare() -> None:
    """Run once, by ``import mmcondetr``, before anything of mmdet is imported."""
    check_one_mmcv()
    install_mmcv_ext()
    name_package()
    register_safe_globals()
