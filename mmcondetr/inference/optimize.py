"""Optimising a trained detector for faster inference with the same results."""

from __future__ import annotations

import ctypes
import os

import torch
from mmcv.cnn import fuse_conv_bn
from torch import nn

from mmcondetr.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
PRECISIONS = {'fp32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def optimize_for_inference(
    model: nn.Module, dtype: torch.dtype | None = None, compile: bool = False, keep_memory: bool = False
) -> nn.Module:
    """Prepare a detector for inference, in place; it cannot be trained afterwards.

    BatchNorm is folded into the convolutions' weights, weights become channels-last, and parts needed only for training
    are removed: gradients, the matcher and the losses. In float32 boxes and scores stay equal within 1e-4.

    Works on any detector of this package, including that of mmdet's ``DetInferencer`` (``inferencer.model``);
    :class:`mmcondetr.inference.DetInferencer` calls it if ``optimize`` is given. Detectors of other packages, such as
    mmdet's DETR, keep their losses, which mmdet's heads use for prediction, and support float32 only.

    Args:
        model: a detector with its weights loaded, on its device.
        dtype: torch.bfloat16 or torch.float16 for matrix products and convolutions; boxes stay in float32. None for
            float32 everywhere.
        compile: use torch.compile for backbone and transformer, at the first image; on a CPU this needs a C++
            compiler.
        keep_memory: on a CPU, also call :func:`keep_freed_memory`, which affects the whole process and cannot be
            undone; saves a fifth of the time of an R50.

    Returns:
        The model itself.

    Raises:
        ValueError: the dtype is not supported.
        UserError: a dtype below float32 is given for a detector of another package.
    """
    if dtype not in PRECISIONS.values():
        raise ValueError(f'optimize_for_inference: dtype must be None, torch.bfloat16 or torch.float16, got {dtype}')
    ours = hasattr(getattr(model, 'decoder', None), 'reference_point')
    if dtype is not None and not ours:
        raise UserError(
            f"optimize_for_inference: {dtype} is for this package's detectors, and "
            f'{type(model).__name__} is not one of them; it can be optimised in float32'
        )
    model.eval()  # only frozen statistics can be folded
    fuse_conv_bn(model)
    model.eval().requires_grad_(False)  # fusing creates new parameters and modules
    _lay_out_channels_last(model)
    if ours:
        _drop_training_parts(model)
    model.loss = _refuse_training
    if dtype is not None:
        _lower_precision(model, dtype)
    if keep_memory and next(model.parameters()).device.type == 'cpu':
        keep_freed_memory()
    if compile:
        for part in ('extract_feat', 'forward_transformer'):
            if hasattr(model, part):
                setattr(model, part, torch.compile(getattr(model, part)))
    return model


def _lay_out_channels_last(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def _drop_training_parts(model: nn.Module) -> None:
    for name in ('loss_cls', 'loss_bbox', 'loss_iou', 'matcher'):
        delattr(model.bbox_head, name)
    del model.training_queries


def _refuse_training(*args: object, **kwargs: object) -> None:
    raise RuntimeError('This model was optimised for inference and cannot be trained: build it again from its config.')


def _lower_precision(model: nn.Module, dtype: torch.dtype) -> None:
    """Store weights of matrix products and convolutions in ``dtype`` and run under autocast, which casts the rest.

    Everything that determines boxes stays in float32: reference points and head (see precision.py).
    """
    exact = {*model.bbox_head.modules(), *model.decoder.reference_point.modules()}
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module not in exact:
            module.to(dtype)
    device = next(model.parameters()).device.type
    model.forward = torch.autocast(device, dtype=dtype)(model.forward)


def keep_freed_memory() -> bool:
    """Let the process keep memory that it frees; returns whether this succeeded.

    glibc returns freed blocks of more than 32 MB, such as large feature maps, to the system, so that every image pays
    for allocating the same pages again, a fifth of an R50's time. Other allocators (jemalloc, tcmalloc, those of macOS
    and Windows) have no such setting and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt is None:
        return False
    largest = 2**31 - 1
    return bool(mallopt(_M_MMAP_THRESHOLD, largest) and mallopt(_M_TRIM_THRESHOLD, largest))
