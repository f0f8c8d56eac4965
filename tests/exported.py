"""Exported files for tests: detectors so small that tracing them takes seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from torch import nn

from mmcondetr.export import export_detector
from mmcondetr.runtime.metadata import Metadata, Resize

CLASSES = ('circle', 'triangle', 'square', 'star', 'ring')
PREPROCESSOR = dict(
    type='mmdet.DetDataPreprocessor',
    mean=[120.0, 110.0, 100.0],
    std=[60.0, 50.0, 55.0],
    bgr_to_rgb=True,
    pad_size_divisor=1,
)


def least(config: dict) -> dict:
    """A model's config with the minimum of repeated parts, and a preprocessor whose channels differ."""
    config['backbone'] = dict(config['backbone'], depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1))
    config['backbone']['out_indices'] = (1,)
    config['neck'] = dict(config['neck'], in_channels=[16])
    for part, layers in (('encoder', 1), ('decoder', 2)):
        config[part]['num_layers'] = layers
    config['data_preprocessor'] = PREPROCESSOR
    return config


def metadata(**changes) -> Metadata:
    """Metadata for such a model."""
    given = dict(
        package='0',
        config='tiny',
        checkpoint='tiny.pth',
        checkpoint_sha256='0' * 64,
        precision='float32',
        classes=CLASSES,
        palette=(),
        resize=Resize((96, 80), True, 'bilinear'),
        pad_size_divisor=1,
        mean=(120.0, 110.0, 100.0),
        std=(60.0, 50.0, 55.0),
        max_detections=20,
    )
    return Metadata(**{**given, **changes})


def blocky_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image with large structures, which a small model can distinguish; (height, width, 3) uint8, BGR."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_CUBIC)


def export(model: nn.Module, out: Path, masks: bool = False, report=lambda line: None, **options) -> list:
    """Export and compare on two images; returns the comparisons."""
    model.dataset_meta = dict(classes=CLASSES)
    images = [blocky_image(64, 96), blocky_image(90, 70, seed=1)]
    return export_detector(model, metadata(masks=masks), out, verify=images, report=report, **options)
