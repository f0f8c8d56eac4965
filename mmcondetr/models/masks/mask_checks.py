"""Settings of a mask head that do not fit its detector: one line with the setting and its right value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from typing import TYPE_CHECKING, Any

from mmdet.models.backbones import ResNet
from torch import nn

from mmcondetr.errors import UserError

if TYPE_CHECKING:
    from mmcondetr.models.masks.mask_inputs import MaskInputs


def check_stages(backbone: Mapping[str, Any]) -> None:
    """Called before a backbone is built from its config: mmdet's ResNet only asserts that the stages exist.

    Raises:
        UserError: ``out_indices`` are not stages of the backbone in increasing order.
    """
    stages, given = backbone.get('num_stages'), backbone.get('out_indices')
    if not isinstance(stages, int) or given is None:
        return
    numbers = list(given) if isinstance(given, (list, tuple)) else []
    in_range = all(isinstance(each, int) and 0 <= each < stages for each in numbers)
    if not numbers or not in_range or numbers != sorted(set(numbers)):
        raise UserError(
            f'model.backbone.out_indices={given!r}: must be numbers of stages in increasing order, 0 to {stages - 1} '
            f'with num_stages={stages}. A detector needs the last, ({stages - 1},), a mask head the finer ones, too, '
            f'{tuple(range(stages))}.'
        )


def check_widths(widths: Sequence[int], embed_dims: int, num_heads: int, num_groups: int) -> None:
    """Check a mask head's own settings.

    Args:
        widths: channels after each of its convolutions.

    Raises:
        UserError: the heads or the groups do not divide the channels.
    """
    if embed_dims % num_heads:
        raise UserError(f'model.mask_head.num_heads={num_heads}: must divide model.mask_head.embed_dims={embed_dims}.')
    if any(width < 1 or width % num_groups for width in widths):
        raise UserError(
            f'model.mask_head.num_groups={num_groups}: must divide the channels of every step, {list(widths)} with '
            f'embed_dims={embed_dims} and num_heads={num_heads}: write num_groups={gcd(*widths)}, or one that divides '
            'it, or other embed_dims.'
        )


def check_fit(detector: nn.Module) -> None:
    """Called once, when a detector with a mask head is built.

    Raises:
        UserError: its widths, feature maps or classes are not those of the mask head.
    """
    head, outputs = detector.mask_head, detector.bbox_head
    width = outputs.class_embed.in_features
    if head.embed_dims != width:
        raise UserError(
            f'model.mask_head.embed_dims={head.embed_dims}: must be the width of queries and tokens, {width}, as in '
            f'model.bbox_head.embed_dims: write embed_dims={width}.'
        )
    merging = head.panoptic
    if merging is not None and merging.num_classes != outputs.num_classes:
        raise UserError(
            f'model.mask_head.panoptic.num_classes={merging.num_classes}: must be model.bbox_head.num_classes, '
            f'{outputs.num_classes}, things and stuff together.'
        )
    channels = _stage_channels(detector.backbone)
    given = getattr(detector.backbone, 'out_indices', None)
    if given is None:
        return
    if channels is not None:
        _check_maps(tuple(given), channels, _input_of(detector.neck), head.lateral_channels)
    elif len(given) != len(head.lateral_channels) + 1:
        raise UserError(
            f'model.backbone.out_indices={tuple(given)}: must name {len(head.lateral_channels) + 1} feature maps, one '
            f'for each of model.mask_head.lateral_channels={head.lateral_channels} and a last one for the encoder.'
        )


def _stage_channels(backbone: nn.Module) -> list[int] | None:
    """Channels of the feature map of every stage of mmdet's ResNets and Swin; None for other backbones."""
    if isinstance(backbone, ResNet):
        blocks = [getattr(backbone, name)[-1] for name in backbone.res_layers]
        return [getattr(block, 'conv3', block.conv2).out_channels for block in blocks]
    widths = getattr(backbone, 'num_features', None)
    return list(widths) if isinstance(widths, (list, tuple)) else None


def _input_of(neck: nn.Module) -> int | None:
    """Channels of the feature map that a neck with one level takes."""
    convs = getattr(neck, 'convs', None)
    return getattr(getattr(convs[-1], 'conv', None), 'in_channels', None) if convs else None


def _check_maps(given: tuple[int, ...], channels: list[int], entrance: int | None, laterals: tuple[int, ...]) -> None:
    """Check which stages the backbone outputs.

    Args:
        given: ``out_indices``.
        channels: of every stage.
        entrance: channels that the neck takes; None if unknown.
        laterals: ``lateral_channels``.

    Raises:
        UserError: with the right ``out_indices`` or ``lateral_channels``.
    """
    expected, last = tuple(channels[index] for index in given[:-1]), given[-1]
    if entrance in channels:
        last = channels.index(entrance)
    elif entrance is not None:
        raise UserError(
            f'model.neck.in_channels=[{entrance}]: must be the channels of the last of '
            f'model.backbone.out_indices={given}: write in_channels=[{channels[last]}].'
        )
    if last == given[-1] and laterals == expected:
        return
    of_laterals = tuple(channels.index(each) for each in laterals if each in channels)
    finer = tuple(sorted({*of_laterals}))
    if laterals and len(finer) == len(laterals) and of_laterals == finer and finer[-1] < last:
        write = f'out_indices={(*of_laterals, last)}'
    elif last == given[-1] and expected:
        write = f'model.mask_head.lateral_channels={expected}'
    else:
        write = f'out_indices={tuple(range(last + 1))} and model.mask_head.lateral_channels={tuple(channels[:last])}'
    raise UserError(
        f'model.backbone.out_indices={given} and model.mask_head.lateral_channels={laterals} do not fit: the feature '
        f'maps of the stages have {channels} channels; the last one of out_indices must be that of model.neck '
        f'({channels[last]} channels), and the ones before it have the lateral_channels. Write {write}.'
    )


def check_laterals(lateral_channels: Sequence[int], inputs: MaskInputs) -> None:
    """Check the feature maps themselves, for backbones whose channels are not known before.

    Raises:
        UserError: their channels are not ``lateral_channels``.
    """
    given = tuple(lateral.shape[1] for lateral in inputs.laterals)
    if given != tuple(lateral_channels):
        raise UserError(
            f"model.mask_head.lateral_channels={tuple(lateral_channels)}: the backbone's feature maps before the last "
            f'have {given} channels: write lateral_channels={given}, or other model.backbone.out_indices.'
        )
