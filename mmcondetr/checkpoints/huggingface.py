"""The two files beside Hugging Face's weights: ``config.json`` and ``preprocessor_config.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmcondetr.checkpoints.classes import HEAD, Names
from mmcondetr.errors import UserError

_DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
_HEADS = 8  # weights do not reveal the number of attention heads, which is 8 in every published model


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """The number of different values of the pattern's group over all names."""
    return len({found.group(1) for name in tensors if (found := re.match(pattern, name))})


def _backbone(tensors: Mapping[str, Tensor], dc5: bool) -> dict[str, Any]:
    """transformers can dilate timm's ResNet only; otherwise its own ResNet is used, which needs no extra package."""
    depths = tuple(_count(tensors, rf'backbone\.layer{stage}\.(\d+)\.') for stage in range(1, 5))
    if 'backbone.layer1.0.conv3.weight' not in tensors:
        raise UserError(
            f'the backbone (blocks per stage: {depths}) is not a ResNet with bottleneck blocks, the '
            'only kind that can be written for Hugging Face.'
        )
    if dc5:
        if depths not in _DEPTHS:
            raise UserError(f'timm has no ResNet with {depths} blocks per stage.')
        return dict(
            use_timm_backbone=True,
            backbone=f'resnet{_DEPTHS[depths]}',
            backbone_config=None,
            dilation=True,
            use_pretrained_backbone=False,
        )
    widths = [len(tensors[f'backbone.layer{stage}.0.conv3.weight']) for stage in range(1, 5)]
    own = dict(
        model_type='resnet',
        depths=list(depths),
        hidden_sizes=widths,
        layer_type='bottleneck',
        hidden_act='relu',
        embedding_size=len(tensors['backbone.conv1.weight']),
        downsample_in_bottleneck=False,
        downsample_in_first_stage=False,
        num_channels=3,
        out_features=['stage4'],
        out_indices=[4],
        stage_names=['stem', 'stage1', 'stage2', 'stage3', 'stage4'],
    )
    return dict(
        use_timm_backbone=False, backbone=None, backbone_config=own, dilation=False, use_pretrained_backbone=False
    )


def model_config(tensors: Mapping[str, Tensor], names: Names | None, dc5: bool) -> dict[str, Any]:
    """``config.json`` of a ConditionalDetrForObjectDetection.

    Args:
        tensors: under our names.
        names: class names of the head's rows; a row without a class becomes 'N/A', as in the published models.
    """
    count = len(tensors[HEAD[0]])
    labels = ['N/A' if name is None else name for name in names] if names else [f'LABEL_{i}' for i in range(count)]
    queries, width = tensors['query_embedding.weight'].shape
    encoder, decoder = 'encoder.layers.0.ffn.linear1.weight', 'decoder.layers.0.ffn.linear1.weight'
    return dict(
        architectures=['ConditionalDetrForObjectDetection'],
        model_type='conditional_detr',
        d_model=width,
        num_queries=queries,
        num_channels=3,
        is_encoder_decoder=True,
        activation_function='relu',
        encoder_layers=_count(tensors, r'encoder\.layers\.(\d+)\.'),
        encoder_attention_heads=_HEADS,
        encoder_ffn_dim=len(tensors[encoder]),
        decoder_layers=_count(tensors, r'decoder\.layers\.(\d+)\.'),
        decoder_attention_heads=_HEADS,
        decoder_ffn_dim=len(tensors[decoder]),
        dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        auxiliary_loss=False,
        position_embedding_type='sine',
        class_cost=2,
        bbox_cost=5,
        giou_cost=2,
        cls_loss_coefficient=2,
        bbox_loss_coefficient=5,
        giou_loss_coefficient=2,
        focal_alpha=0.25,
        id2label={str(index): label for index, label in enumerate(labels)},
        label2id={label: index for index, label in reversed(list(enumerate(labels)))},
        **_backbone(tensors, dc5),
    )


PREPROCESSOR = dict(
    image_processor_type='ConditionalDetrImageProcessor',
    format='coco_detection',
    do_resize=True,
    size=dict(shortest_edge=800, longest_edge=1333),
    resample=2,
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
    do_pad=True,
)


def write_configs(folder: Path, tensors: Mapping[str, Tensor], names: Names | None, dc5: bool) -> None:
    """Write both config files."""
    files = {'config.json': model_config(tensors, names, dc5), 'preprocessor_config.json': PREPROCESSOR}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
