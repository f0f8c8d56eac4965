"""The tiny model with masks, and a batch that has them."""

from __future__ import annotations

import torch
from mmdet.structures.mask import BitmapMasks
from tiny_model import batch

TINY = dict(
    type='mmcondetr.MaskHead', embed_dims=32, num_heads=4, lateral_channels=(32, 64, 128), num_groups=2, chunk=3
)


def with_masks(config: dict, **changes) -> dict:
    """A config with the tiny mask head."""
    config['backbone']['out_indices'] = (0, 1, 2, 3)
    config['mask_head'] = dict(TINY, **changes)
    return config


def masked_batch() -> tuple[torch.Tensor, list]:
    """The tiny batch with masks: the lower half of every box."""
    images, samples = batch()
    for sample in samples:
        height, width = sample.img_shape
        masks = torch.zeros(len(sample.gt_instances), height, width, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, sample.gt_instances.bboxes.int().tolist()):
            mask[(top + bottom) // 2 : bottom, left:right] = 1
        sample.gt_instances.masks = BitmapMasks(masks.numpy(), height, width)
    return images, samples
