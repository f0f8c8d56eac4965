"""The sizes of a mask: stride 4 of the padded batch, the batch, the image without padding, the original image."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor


def resize(logits: Tensor, size: Sequence[int]) -> Tensor:
    """(K, h, w) -> (K, *size)."""
    return F.interpolate(logits[:, None], size=tuple(size), mode='bilinear', align_corners=False)[:, 0]


def pad(masks: Tensor, size: Sequence[int]) -> Tensor:
    """(G, h, w) -> (G, *size), zero at the right and the bottom."""
    return F.pad(masks, (0, size[1] - masks.shape[2], 0, size[0] - masks.shape[1]))


def finish(logits: Tensor, sample: DetDataSample, final: Sequence[int]) -> Tensor:
    """Logits at stride 4 of the padded image -> (K, *final), without the padding."""
    if not len(logits):
        return logits.new_zeros(0, *final)
    height, width = sample.img_shape[:2]
    logits = resize(logits, sample.batch_input_shape)[:, :height, :width]
    return logits if tuple(final) == (height, width) else resize(logits, final)
