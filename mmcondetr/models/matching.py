"""Hungarian matching of predictions and ground truth, for all decoder layers in one pass.

One cost tensor for all layers and images, one transfer to the host, one assignment a layer and image.
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
    """Which prediction has which ground truth: index vectors of one length M, one entry a matched pair.

    Attributes:
        layer: decoder layer of the pair.
        image: image of the pair.
        query: object query of the pair.
        target: ground truth of the pair, counted within its image.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor

    @property
    def predictions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Index into (L, B, N, ...) tensors."""
        return self.layer, self.image, self.query

    def sum(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """Sum one value a pair, (M,), into (L, B), the first two numbers of ``shape``."""
        table = values.new_zeros(shape[0] * shape[1])
        values = values.reshape(-1)[: len(self.image)]  # where there is no pair, mmdet's L1 loss gives one number
        return table.index_add(0, self.layer * shape[1] + self.image, values).view(shape[0], shape[1])


@TASK_UTILS.register_module()
class HungarianMatcher:
    """Minimises class, L1 and GIoU cost over one-to-one assignments.

    Args:
        class_cost: weight of the focal classification cost.
        bbox_cost: weight of the L1 distance of boxes (cxcywh, fractions of the image).
        giou_cost: weight of minus the GIoU.
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
        """Assign to every ground truth a prediction of its own, in every layer.

        Args:
            logits: (L, B, N, classes).
            boxes: (L, B, N, 4), cxcywh in fractions of the unpadded image.
            labels: per image (G_b, ) class indices.
            targets: per image (G_b, 4) boxes, cxcywh in fractions of the unpadded image.

        Returns:
            The pairs, min(N, G_b) a layer and image, ordered by layer, image and query.
        """
        counts = [len(label) for label in labels]
        cost = self.cost(logits, boxes, pad_sequence(list(labels), True), pad_sequence(list(targets), True))
        # A non-finite prediction is reported by the loss, which sees it too; here it only must not be matched.
        cost = np.nan_to_num(cost.cpu().numpy(), nan=1e6, posinf=1e6, neginf=1e6)
        pairs: list[np.ndarray] = [np.zeros((4, 0), dtype=np.int64)]
        for layer in range(len(cost)):
            for image, count in enumerate(counts):
                query, target = linear_sum_assignment(cost[layer, image, :, :count])
                pairs.append(np.stack((np.full_like(query, layer), np.full_like(query, image), query, target)))
        return Matches(*torch.from_numpy(np.concatenate(pairs, axis=1)).to(logits.device))

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Cost of every pair (L, B, N, G), in float32, for labels (B, G) and targets (B, G, 4) padded to G."""
        logits, boxes, targets = logits.float(), boxes.float(), targets.float()
        num_layers, _, num_queries, _ = logits.shape
        wanted = labels[None, :, None, :].expand(num_layers, -1, num_queries, -1)  # (L, B, N, G)
        distance = (boxes[..., None, :] - targets[None, :, None]).abs().sum(-1)  # (L, B, N, G)
        giou = bbox_overlaps(
            bbox_cxcywh_to_xyxy(boxes),
            bbox_cxcywh_to_xyxy(targets).expand(num_layers, -1, -1, -1),
            mode='giou',
            eps=1e-12,
        )  # (L, B, N, G)
        return (
            self.class_cost * self.classification_cost(logits, wanted)
            + self.bbox_cost * distance
            - self.giou_cost * giou
        )

    def classification_cost(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """What taking this class for a positive instead of a negative would change in the focal loss.

        Args:
            logits: (L, B, N, classes).
            wanted: (L, B, N, G) class indices.

        Returns:
            (L, B, N, G).
        """
        p = logits.gather(-1, wanted).sigmoid()
        positive = -self.alpha * (1 - p) ** self.gamma * (p + 1e-8).log()
        negative = -(1 - self.alpha) * p**self.gamma * (1 - p + 1e-8).log()
        return positive - negative


def ground_truth(boxes: Tensor, samples: SampleList) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The ground truth of images, on the device of ``boxes``, of which nothing else is used.

    Returns:
        - the images' sizes (B, 4): width, height, width, height;
        - per image (G_b, ) class indices;
        - per image (G_b, 4) boxes, cxcywh in fractions of the unpadded image.
    """
    sizes = boxes.new_tensor([sample.img_shape[1::-1] * 2 for sample in samples])
    labels = [sample.gt_instances.labels for sample in samples]
    targets = [bbox_xyxy_to_cxcywh(sample.gt_instances.bboxes / size) for sample, size in zip(samples, sizes)]
    return sizes, labels, targets
