"""What mmdet 3.3, mmengine 0.10 and mmcv-lite 2.1 need to work together with today's PyTorch: nothing else lives here.

* mmdet imports ``mmcv._ext``, the compiled half of mmcv, which mmcv-lite lacks. :func:`install_mmcv_ext` puts a
  stand-in there whose ops raise a clear error when they are called, and steps aside where the real one exists.
* mmengine refuses ``_base_ = 'mmcondetr::...'`` unless its ``MODULE2PACKAGE`` table names the package.
"""

import importlib.machinery
import importlib.util
import sys
import types


class MissingMMCVOpError(RuntimeError):
    """A compiled mmcv op was called where only mmcv-lite is installed."""


class _MMCVExtStandIn(types.ModuleType):
    """Has every op that is asked for; each raises :class:`MissingMMCVOpError` when it is called."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing_op(*args, **kwargs):
            raise MissingMMCVOpError(
                f"mmcv op '{name}' is compiled, and mmcv-lite does not have it: install the full mmcv "
                f'("pip uninstall mmcv-lite; pip install mmcondetr[full]") to use it.')

        missing_op.__name__ = name
        return missing_op


def install_mmcv_ext() -> bool:
    """Make ``import mmdet.models`` work with mmcv-lite; returns whether the stand-in is in place."""
    name = 'mmcv._ext'
    if name in sys.modules:
        return isinstance(sys.modules[name], _MMCVExtStandIn)
    if importlib.util.find_spec(name) is not None:
        return False
    module = _MMCVExtStandIn(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, origin='mmcondetr.compat')
    module.__spec__.loader = importlib.machinery.BuiltinImporter
    sys.modules[name] = module
    return True


def name_package() -> None:
    """Tell mmengine that ``mmcondetr::some/config.py`` is to be looked up in this package."""
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['mmcondetr'] = 'mmcondetr'


def prepare() -> None:
    """Run once, by ``import mmcondetr``, before anything of mmdet is imported."""
    install_mmcv_ext()
    name_package()
