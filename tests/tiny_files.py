"""Tiny config and checkpoint files, for tests of command lines that take them."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from tiny_model import build, tiny_config

CLASSES = ('circle', 'triangle', 'square', 'star', 'ring')


def tiny_detr_config() -> dict:
    """mmdet's DETR of the size of tiny_model's Conditional DETR."""
    config = tiny_config()
    attention = dict(embed_dims=32, num_heads=4, dropout=0.0, batch_first=True)
    ffn = dict(embed_dims=32, feedforward_channels=64, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type='ReLU', inplace=True))
    cross_attention = copy.deepcopy(attention)
    config.update(
        type='mmdet.DETR',
        positional_encoding=dict(num_feats=16, normalize=True),
        encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
        decoder=dict(
            num_layers=3,
            return_intermediate=True,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=cross_attention, ffn_cfg=ffn),
        ),
        bbox_head=dict(
            type='mmdet.DETRHead',
            num_classes=5,
            embed_dims=32,
            loss_cls=dict(type='mmdet.CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False, class_weight=1.0),
            loss_bbox=dict(type='mmdet.L1Loss'),
            loss_iou=dict(type='mmdet.GIoULoss'),
        ),
        train_cfg=None,
        test_cfg=dict(max_per_img=12),
    )
    return config


def write_model(folder: Path, model: dict, name: str = 'tiny', seed: int = 0) -> tuple[str, str]:
    """A config whose images become 96 pixels high or wide, and a checkpoint for it; returns their paths."""
    pipeline = [
        dict(type='mmcv.LoadImageFromFile'),
        dict(type='mmdet.Resize', scale=(128, 96), keep_ratio=True),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(type='mmdet.PackDetInputs'),
    ]
    preprocessor = dict(
        type='mmdet.DetDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, pad_size_divisor=1
    )
    dataset = dict(
        type='mmdet.CocoDataset',
        data_root=str(folder),
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        test_mode=True,
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    model = dict(model, data_preprocessor=preprocessor)
    config, checkpoint = folder / f'{name}.py', folder / f'{name}.pth'
    settings = dict(model=copy.deepcopy(model), test_dataloader=dict(dataset=dataset), default_scope='mmdet')
    Config(settings).dump(str(config))
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=build(model, seed).state_dict(), meta=meta), checkpoint)
    return str(config), str(checkpoint)
