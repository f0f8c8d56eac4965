"""Mask losses, one number per mask: DETR's, which are those of RetinaNet and V-Net."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of a mask's pixels: (K, pixels) and (K, pixels) of 0 and 1 -> (K,).

    Paper: Lin et al., Focal Loss, eq. 5.
    """
    p = logits.sigmoid()
    wrong = p * (1 - target) + (1 - p) * target  # 1 - p_t
    weight = alpha * target + (1 - alpha) * (1 - target)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
    return (weight * wrong**gamma * loss).mean(dim=1)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - (2 |P T| + 1) / (|P| + |T| + 1): (K, pixels) and (K, pixels) of 0 and 1 -> (K,).

    Paper: Milletari et al., V-Net, section 3.
    """
    p = logits.sigmoid()
    return 1 - (2 * (p * target).sum(1) + 1) / (p.sum(1) + target.sum(1) + 1)
