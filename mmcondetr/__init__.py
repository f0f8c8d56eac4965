"""Conditional DETR (Meng et al., ICCV 2021, arXiv 2108.06152) for MMDetection 3.x.

``import mmcondetr`` registers everything: a config can then use our modules (``type='mmcondetr.ConditionalDETR'``) and
inherit from our configs (``_base_ = 'mmcondetr::conditional_detr/....py'``), every public checkpoint loads, and mmdet
works with mmcv-lite. Import it before any mmdet module.

Registration is lazy: each part is set up when the library it extends is imported. :mod:`mmcondetr.runtime`, which runs
exported detectors, therefore needs neither torch nor mmdet.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from wrapt import when_imported

from mmcondetr.errors import missing

__version__ = '0.1.0'

#: Public name -> the module that defines it.
_PUBLIC = {
    'DetInferencer': 'mmcondetr.inference',
    'Detections': 'mmcondetr.inference',
    'Detector': 'mmcondetr.inference',
    'load_detector': 'mmcondetr.inference',
    'optimize_for_inference': 'mmcondetr.inference',
    'record_attention': 'mmcondetr.visualization',
}

__all__ = ['__version__', *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or 'mmcondetr').partition('.')[0] == 'mmcondetr':
            raise
        raise ImportError(f'mmcondetr.{name}: {missing(error.name)}') from error


@when_imported('mmcv')
def _prepare_mmcv(_: ModuleType) -> None:
    from mmcondetr.compat.mmcv_stand_in import check_one_mmcv, install_mmcv_ext

    check_one_mmcv()
    install_mmcv_ext()


@when_imported('mmengine.config.config')
def _prepare_configs(module: ModuleType) -> None:
    from mmcondetr.compat.config_scope import register_config_scope
    from mmcondetr.compat.config_text import format_once

    register_config_scope()
    format_once(module)


@when_imported('mmengine.runner')
def _prepare_checkpoints(module: ModuleType) -> None:
    from mmcondetr.checkpoints.reading import register_loaders
    from mmcondetr.compat.log_folder import patch_log_folder
    from mmcondetr.compat.resume_errors import patch_runner
    from mmcondetr.compat.safe_loading import register_safe_globals
    from mmcondetr.compat.stored_configs import patch_checkpoint_loader

    register_safe_globals()
    register_loaders(module.CheckpointLoader)
    patch_checkpoint_loader(module.CheckpointLoader)
    patch_runner(module.Runner)
    patch_log_folder(module.Runner)


@when_imported('mmengine.infer.infer')
def _prepare_base_inferencer(module: ModuleType) -> None:
    from mmcondetr.compat.stored_configs import patch_base_inferencer

    patch_base_inferencer(module.BaseInferencer)


@when_imported('mmdet.apis.det_inferencer')
def _prepare_inferencer(module: ModuleType) -> None:
    from mmcondetr.compat.inferencer import patch_det_inferencer

    patch_det_inferencer(module.DetInferencer)
