"""What denoising adds to the objects of an image: other classes, and boxes nearby."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_labels(labels: Tensor, num_classes: int, probability: float) -> Tensor:
    """Replace class indices, of any shape, with the given probability by random ones (possibly the same)."""
    flipped = torch.rand_like(labels, dtype=torch.float) < probability
    return torch.where(flipped, torch.randint_like(labels, num_classes), labels)


def draw_boxes(boxes: Tensor, scale: float) -> Tensor:
    """b' = clamp(b + scale u (w/2, h/2, w, h), 0, 1), u uniform in [-1, 1]^4: (..., 4) cxcywh, fractions of the image.

    With a scale below 1 the centre stays within the box, and the sides change by less than their length.
    """
    reach = torch.cat((boxes[..., 2:] / 2, boxes[..., 2:]), dim=-1)
    return (boxes + scale * (torch.rand_like(boxes) * 2 - 1) * reach).clamp(0, 1)


def inverse_sigmoid(x: Tensor) -> Tensor:
    """The authors': log(max(x, 0.001) / max(1 - x, 0.001))."""
    return torch.log(x.clamp(min=1e-3) / (1 - x).clamp(min=1e-3))
