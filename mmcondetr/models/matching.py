"""Hungarian matching of predictions and ground truth, for all decoder layers in one pass.

One cost tensor for all layers and images, one transfer to the host, one assignment per layer and image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps, bbox_xyxy_to_cxcywh
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmcondetr.registry import TASK_UTILS


class Matches(NamedTuple):
    """The M pairs of prediction and ground truth, as index vectors (M,).

    Attributes:
        layer: decoder layer of the pair.
        image: image of the pair.
        query: object query of the pair.
        target: ground truth of the pair, as an index within its image.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor

    @property
    def predictions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Index into tensors (L, B, N, ...)."""
        return self.layer, self.image, self.query

    def sum(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """Sum one value per pair, (M,), into (L, B), the first two entries of ``shape``."""
        table = values.new_zeros(shape[0] * shape[1])
        values = values.reshape(-1)[: len(self.image)]  # without pairs, mmdet's L1 loss returns a single number
        return table.index_add(0, self.layer * shape[1] + self.image, values).view(shape[0], shape[1])


@TASK_UTILS.register_module()
class HungarianMatcher:
    """Minimises class, L1 and GIoU cost over one-to-one assignments.

    Args:
        class_cost: weight of the focal classification cost.
        bbox_cost: weight of the L1 distance of boxes (cxcywh, fractions of the image).
        giou_cost: weight of the negative GIoU.
        alpha: of the focal cost.
        gamma: of the focal cost.

    Paper: §3.5 (loss), as in Deformable DETR.
    """

    def __init__(
        self,
        class_cost: float = 2.0,
        bbox_cost: float = 5.0,
        giou_cost: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        self.class_cost, self.bbox_cost, self.giou_cost = class_cost, bbox_cost, giou_cost
        self.alpha, self.gamma = alpha, gamma

    @torch.no_grad()
    def match(self, logits: Tensor, boxes: Tensor, labels: Sequence[Tensor], targets: Sequence[Tensor]) -> Matches:
        """Assign a different prediction to each ground truth, in every layer.

        Args:
            logits: (L, B, N, classes).
            boxes: (L, B, N, 4), cxcywh in fractions of the unpadded image.
            labels: per image (G_b,) class indices.
            targets: per image (G_b, 4) boxes, cxcywh in fractions of the unpadded image.

        Returns:
            The pairs, min(N, G_b) per layer and image, ordered by layer, image and query.
        """
        counts = [len(label) for label in labels]
        cost = self.cost(logits, boxes, pad_sequence(list(labels), True), pad_sequence(list(targets), True))
        # Non-finite predictions are reported by the loss; here they only must not be matched.
        cost = np.nan_to_num(cost.cpu().numpy(), nan=1e6, posinf=1e6, neginf=1e6)
        pairs: list[np.ndarray] = [np.zeros((4, 0), dtype=np.int64)]
        for layer in range(len(cost)):
            for image, count in enumerate(counts):
                query, target = linear_sum_assignment(cost[layer, image, :, :count])
                pairs.append(np.stack((np.full_like(query, layer), np.full_like(query, image), query, target)))
        return Matches(*torch.from_numpy(np.concatenate(pairs, axis=1)).to(logits.device))

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Cost of every pair (L, B, N, G) in float32; labels (B, G) and targets (B, G, 4) are padded to G."""
        logits, boxes, targets = logits.float(), boxes.float(), targets.float()
        num_layers, _, num_queries, _ = logits.shape
        target_labels = labels[None, :, None, :].expand(num_layers, -1, num_queries, -1)  # (L, B, N, G)
        distance = (boxes[..., None, :] - targets[None, :, None]).abs().sum(-1)  # (L, B, N, G)
        giou = bbox_overlaps(
            bbox_cxcywh_to_xyxy(boxes),
            bbox_cxcywh_to_xyxy(targets).expand(num_layers, -1, -1, -1),
            mode='giou',
            eps=1e-12,
        )  # (L, B, N, G)
        return (
            self.class_cost * self.classification_cost(logits, target_labels)
            + self.bbox_cost * distance
            - self.giou_cost * giou
        )

    def classification_cost(self, logits: Tensor, target_labels: Tensor) -> Tensor:
        """The change in focal loss if the target class is a positive instead of a negative.

        Args:
            logits: (L, B, N, classes).
            target_labels: (L, B, N, G), class index of each target.

        Returns:
            (L, B, N, G).
        """
        p = logits.gather(-1, target_labels).sigmoid()
        positive = -self.alpha * (1 - p) ** self.gamma * (p + 1e-8).log()
        negative = -(1 - self.alpha) * p**self.gamma * (1 - p + 1e-8).log()
        return positive - negative


def ground_truth(boxes: Tensor, samples: SampleList) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The ground truth of the images, on the device and in the dtype of ``boxes``.

    Returns:
        - image sizes (B, 4): width, height, width, height;
        - per image (G_b,) class indices;
        - per image (G_b, 4) boxes, cxcywh in fractions of the unpadded image.
    """
    sizes = boxes.new_tensor([sample.img_shape[1::-1] * 2 for sample in samples])
    labels = [sample.gt_instances.labels for sample in samples]
    targets = [bbox_xyxy_to_cxcywh(sample.gt_instances.bboxes / size) for sample, size in zip(samples, sizes)]
    return sizes, labels, targets
