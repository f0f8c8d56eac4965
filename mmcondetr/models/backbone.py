"""Backbone and neck: mmdet's ResNet with folded frozen BatchNorm, its DC5 variant, and the projection to D channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet as MMDetResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.necks import ChannelMapper
from torch import Tensor, nn

from mmcondetr.layers import checkpointing
from mmcondetr.registry import MODELS


def convolve(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Convolution and BatchNorm of (B, C, h, w), fused into one step if the BatchNorm is frozen.

    A frozen BatchNorm is a scale and a shift, which are folded into the convolution's small weight and bias. This saves
    a pass over the convolution's output, which then need not be kept for the backward pass either.
    """
    foldable = isinstance(norm, nn.BatchNorm2d) and not norm.training and type(conv) is nn.Conv2d
    if not foldable or (torch.is_grad_enabled() and norm.weight.requires_grad):
        return norm(conv(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()  # (C,)
    shift = norm.bias - norm.running_mean * scale
    return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, conv.stride, conv.padding, conv.dilation)


class FoldingBasicBlock(BasicBlock):
    """mmdet's basic block (ResNet-18 and 34) with :func:`convolve`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, planes, h / stride, w / stride)."""
        return checkpointing.run(self.compute, x, recompute=self.with_cp)

    def compute(self, x: Tensor) -> Tensor:
        """The block itself; :meth:`forward` may checkpoint it."""
        out = F.relu_(convolve(self.conv1, self.norm1, x))
        out = convolve(self.conv2, self.norm2, out)
        return F.relu_(out.add_(_shortcut(self, x)))


class FoldingBottleneck(Bottleneck):
    """mmdet's bottleneck block (ResNet-50, 101 and 152) with :func:`convolve`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 4 * planes, h / stride, w / stride)."""
        return checkpointing.run(self.compute, x, recompute=self.with_cp)

    def compute(self, x: Tensor) -> Tensor:
        """The block itself; :meth:`forward` may checkpoint it."""
        out = F.relu_(convolve(self.conv1, self.norm1, x))
        out = F.relu_(convolve(self.conv2, self.norm2, out))
        out = convolve(self.conv3, self.norm3, out)
        return F.relu_(out.add_(_shortcut(self, x)))


def _shortcut(block: nn.Module, x: Tensor) -> Tensor:
    return x if block.downsample is None else convolve(*block.downsample, x)


@MODELS.register_module()
class ResNet(MMDetResNet):
    """mmdet's ResNet with the same parameter names and results, in less time and memory.

    Frozen BatchNorm is folded into the convolutions on the fly, in training too. On a CPU, feature maps are
    channels-last, which saves oneDNN a layout conversion around every convolution.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_stages: number of stages, 1 to 4.
        out_indices: stages whose feature maps are returned.
        options: mmdet's other arguments, with its names and defaults (frozen_stages, norm_cfg, norm_eval, style,
            with_cp, base_channels, stem_channels, strides, dilations, init_cfg ...), except those in UNSUPPORTED.

    Raises:
        ValueError: an argument in UNSUPPORTED is set.
    """

    UNSUPPORTED = ('deep_stem', 'avg_down', 'dcn', 'stage_with_dcn', 'plugins')  # not implemented by the blocks here

    arch_settings = {
        18: (FoldingBasicBlock, (2, 2, 2, 2)),
        34: (FoldingBasicBlock, (3, 4, 6, 3)),
        50: (FoldingBottleneck, (3, 4, 6, 3)),
        101: (FoldingBottleneck, (3, 4, 23, 3)),
        152: (FoldingBottleneck, (3, 8, 36, 3)),
    }

    def __init__(self, depth: int, num_stages: int = 4, out_indices: Sequence[int] = (3,), **options: Any) -> None:
        unsupported = [name for name in self.UNSUPPORTED if options.get(name)]
        if unsupported:
            raise ValueError(f"{type(self).__name__}: {', '.join(unsupported)} is supported by mmdet's own ResNet only")
        options.setdefault('strides', (1, 2, 2, 2)[:num_stages])
        options.setdefault('dilations', (1, 1, 1, 1)[:num_stages])
        super().__init__(depth, num_stages=num_stages, out_indices=out_indices, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, height, width) -> the feature maps of ``out_indices``."""
        if x.device.type == 'cpu':
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.maxpool(F.relu_(convolve(self.conv1, self.norm1, x)))
        features = []
        for name in self.res_layers:
            x = getattr(self, name)(x)
            features.append(x)
        return tuple(features[index] for index in self.out_indices)

    def train(self, mode: bool = True) -> ResNet:
        """Like mmdet's, which leaves frozen stages and BatchNorm alone, but returns the module as nn.Module does."""
        super().train(mode)
        return self


@MODELS.register_module()
class ResNetDC5(ResNet):
    """torchvision's ``replace_stride_with_dilation=[False, False, True]``, with mmdet's parameter names.

    The last stage has stride 1 and dilation 2, except for its first block, which keeps the dilation of the stage
    before, 1. ``mmdet.ResNet(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))`` dilates the first block too: weights
    trained with torchvision's rule (all DC5 models of DETR's authors and of their successors) load there without any
    warning and give wrong results.

    Args:
        depth: 50, 101 or 152.
        num_stages: must be 4; the fourth stage is the dilated one.
        options: see :class:`ResNet`; strides and dilations are fixed.

    Raises:
        ValueError: the blocks of this depth cannot be dilated, or num_stages is not 4.
    """

    def __init__(self, depth: int, num_stages: int = 4, **options: Any) -> None:
        if depth not in (50, 101, 152):
            raise ValueError(f'ResNetDC5: depth must be 50, 101 or 152 (bottleneck blocks), got {depth}')
        if num_stages != 4:
            raise ValueError(f'ResNetDC5: num_stages must be 4 (the fourth stage is dilated), got {num_stages}')
        super().__init__(depth, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), **options)
        first = self.layer4[0].conv2
        first.dilation, first.padding = (1, 1), (1, 1)


@MODELS.register_module()
class InputProjection(ChannelMapper):
    """mmdet's ChannelMapper, initialised as the authors' ``input_proj``: PyTorch's default for a convolution.

    Weight and bias are uniform within +-1 / sqrt(input channels), 0.022 for 2048 channels; ChannelMapper's Xavier
    initialisation gives 0.051 and a bias of zero. Arguments and parameter names are mmdet's.

    Paper: the authors' code of DETR, Conditional DETR and DAB-DETR.
    """

    def init_weights(self) -> None:
        """PyTorch's default initialisation for every convolution."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
