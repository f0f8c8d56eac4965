"""Lets the authors' code of 2021 and 2022 run with a current torch, for make_*_golden.py and tools/benchmark."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sys
import types
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def add_to_path(clone: str) -> None:
    """Make the modules of a clone importable, with what they import from torch 1.7 and from compiled packages."""
    sys.path.insert(0, clone)
    torch.nn.modules.linear._LinearWithBias = torch.nn.Linear
    sys.modules['torch._overrides'] = torch.overrides
    # Imported by backbones and models that are not built here.
    sys.modules['MultiScaleDeformableAttention'] = types.ModuleType('not compiled, not called')
    layers = sys.modules['timm.models.layers'] = types.ModuleType('not installed, not called')
    layers.DropPath = layers.to_2tuple = layers.trunc_normal_ = None
    declare_torchvision_ops()


def declare_torchvision_ops() -> None:
    """Let a CUDA build of torchvision be imported beside a CPU torch: its compiled ops are declared, not defined."""
    if torch.cuda.is_available():
        return
    source = pathlib.Path(importlib.util.find_spec('torchvision').origin).parent / '_meta_registrations.py'
    declare_torchvision_ops.library = torch.library.Library('torchvision', 'DEF')
    for name in sorted(set(re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"', source.read_text()))):
        declare_torchvision_ops.library.define(f'{name}(Tensor a) -> Tensor')


def arguments(**own: object) -> Namespace:
    """The arguments that the command lines of DETR and its descendants share; their defaults, except for ``own``."""
    shared = dict(
        dataset_file='coco',
        device='cpu',
        masks=False,
        frozen_weights=None,
        aux_loss=True,
        num_queries=300,
        hidden_dim=256,
        dropout=0.1,
        nheads=8,
        dim_feedforward=2048,
        enc_layers=6,
        dec_layers=6,
        pre_norm=False,
        position_embedding='sine',
        lr_backbone=1e-5,
        backbone='resnet50',
        dilation=False,
        bbox_loss_coef=5,
        giou_loss_coef=2,
        set_cost_bbox=5,
        set_cost_giou=2,
    )
    return Namespace(**shared | own)


@contextmanager
def without_download(backbone: str = 'resnet50') -> Iterator[None]:
    """Inside, torchvision's ``backbone`` is built without downloading weights, whatever the authors' code passes."""
    import torchvision

    plain = getattr(torchvision.models, backbone)
    setattr(torchvision.models, backbone, lambda pretrained=False, **kwargs: plain(weights=None, **kwargs))
    try:
        yield
    finally:
        setattr(torchvision.models, backbone, plain)
