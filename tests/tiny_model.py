"""A Conditional DETR small enough to run in milliseconds, with weights under which every part affects the outputs."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import mmcondetr  # noqa: F401

TORCH = tuple(int(number) for number in torch.__version__.split('.')[:2])
needs_fp16_on_a_cpu = pytest.mark.skipif(TORCH < (2, 3), reason='before torch 2.3 autocast on a CPU knows bf16 only')

LAYER = dict(embed_dims=32, num_heads=4, feedforward_channels=64, dropout=0.1)
CONFIG = dict(
    type='mmcondetr.ConditionalDETR',
    num_queries=12,
    backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        base_channels=8,
        stem_channels=8,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
    ),
    neck=dict(
        type='mmdet.ChannelMapper',
        in_channels=[256],
        kernel_size=1,
        out_channels=32,
        act_cfg=None,
        norm_cfg=None,
        num_outs=1,
    ),
    positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=16, normalize=True),
    encoder=dict(
        type='mmcondetr.TransformerEncoder', num_layers=2, layer=dict(type='mmcondetr.TransformerEncoderLayer', **LAYER)
    ),
    decoder=dict(
        type='mmcondetr.ConditionalDecoder',
        num_layers=3,
        layer=dict(type='mmcondetr.ConditionalDecoderLayer', **LAYER),
        reference_point=dict(type='mmcondetr.ReferencePoint', embed_dims=32),
        spatial_query=dict(type='mmcondetr.ConditionalSpatialQueryHead', embed_dims=32, num_heads=4),
    ),
    bbox_head=dict(
        type='mmcondetr.ConditionalDETRHead',
        num_classes=5,
        embed_dims=32,
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=5.0),
        loss_iou=dict(type='mmdet.GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(assigner=dict(type='mmcondetr.HungarianMatcher')),
    test_cfg=dict(max_per_img=20),
    data_preprocessor=dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=1),
)


# Gradients that are zero by construction. Softmax does not see what all its logits share: the biases of the keys.
# Before the first layer f is zero: its content projections see nothing, and its self-attention averages equal
# values, whatever the attention weights.
ZERO_GRADIENT_ENDINGS = ('attn.key_content_proj.bias', 'attn.key_position_proj.bias')
ZERO_GRADIENT_FIRST_LAYER = tuple(
    f'decoder.layers.0.self_attn.{name}'
    for name in (
        'query_content_proj.weight',
        'query_content_proj.bias',
        'query_position_proj.weight',
        'query_position_proj.bias',
        'key_content_proj.weight',
        'key_position_proj.weight',
        'value_proj.weight',
    )
)


def tiny_config() -> dict:
    """A copy of the config, to be changed at will."""
    return copy.deepcopy(CONFIG)


def build(config: dict, seed: int = 0) -> torch.nn.Module:
    """Build and fill a model: neither a BatchNorm scale nor a box layer is zero, and queries and tokens stay apart."""
    if not DefaultScope.check_instance_created('mmcondetr-tests'):
        DefaultScope.get_instance('mmcondetr-tests', scope_name='mmdet')
    torch.manual_seed(seed)
    model = MODELS.build(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                gain = 2 if name.endswith('_proj.weight') else 1
                parameter.copy_(gain * torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
            elif name.endswith('weight'):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def sample(size: tuple[int, int], batch_size: tuple[int, int], boxes: list, labels: list) -> DetDataSample:
    """One image's meta data and ground truth; sizes are (height, width), boxes xyxy in pixels."""
    result = DetDataSample(
        metainfo=dict(
            img_shape=size,
            batch_input_shape=batch_size,
            pad_shape=batch_size,
            ori_shape=size,
            scale_factor=(1.0, 1.0),
            img_path=f'image_{size[0]}x{size[1]}.png',
        )
    )
    result.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.tensor(labels, dtype=torch.long)
    )
    return result


def batch(seed: int = 0) -> tuple[torch.Tensor, list[DetDataSample]]:
    """Two images, the second one padded, each with ground truth."""
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(seed))
    images[1, :, 70:] = 0
    images[1, :, :, 100:] = 0
    samples = [
        sample((96, 128), (96, 128), [[4, 6, 50, 60], [30, 20, 120, 90], [60, 10, 80, 40]], [0, 3, 3]),
        sample((70, 100), (96, 128), [[10, 10, 90, 60]], [4]),
    ]
    return images, samples


def is_silent(name: str) -> bool:
    """Whether this parameter's gradient is zero by construction."""
    return name.endswith(ZERO_GRADIENT_ENDINGS) or name in ZERO_GRADIENT_FIRST_LAYER
