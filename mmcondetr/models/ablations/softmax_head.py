"""DETR's classification, a softmax over classes and background: the rows of Table 4 without focal loss."""

import torch
from torch import Tensor, nn

from mmcondetr.models.head import ConditionalDETRHead
from mmcondetr.models.matching import HungarianMatcher, Matches
from mmcondetr.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class SoftmaxDETRHead(ConditionalDETRHead):
    """A head with an additional 'no object' output, and cross-entropy instead of focal loss.

    ``loss_cls`` is a ``mmdet.CrossEntropyLoss`` whose ``class_weight`` has num_classes + 1 entries, the last one for
    background (in DETR 1 for classes, 0.1 for background). Other arguments as in :class:`ConditionalDETRHead`.

    Paper: §4.3, Table 4 (rows without FL).
    """

    num_backgrounds = 1

    def init_class_bias(self) -> None:
        """Zero: all outputs start equal, unlike rare positives under a sigmoid."""
        nn.init.zeros_(self.class_embed.bias)

    def classification_loss(self, logits: Tensor, matches: Matches, classes: Tensor, num_boxes: Tensor) -> Tensor:
        """Weighted cross-entropy over all queries, divided by the sum of their weights.

        Arguments and result as in :meth:`ConditionalDETRHead.classification_loss`; ``num_boxes`` is unused.
        """
        labels = torch.full(logits.shape[:-1], self.num_classes, device=logits.device)  # (L, B, N)
        labels[matches.predictions] = classes
        loss = self.loss_cls(logits.flatten(0, 2), labels.flatten(), reduction_override='none')
        weight = logits.new_tensor(self.loss_cls.class_weight)[labels]  # (L, B, N)
        return loss.view_as(labels).sum(dim=2) / weight.sum(dim=(1, 2))[:, None]

    def class_scores(self, logits: Tensor) -> Tensor:
        """Class probabilities without background: (..., num_classes + 1) -> (..., num_classes)."""
        return logits.softmax(-1)[..., :-1]


@TASK_UTILS.register_module()
class SoftmaxHungarianMatcher(HungarianMatcher):
    """Hungarian matching whose class cost is the negative class probability (DETR uses class_cost=1).

    Arguments as in :class:`HungarianMatcher`; alpha and gamma are unused.
    """

    def classification_cost(self, logits: Tensor, target_labels: Tensor) -> Tensor:
        """Negative probability: logits (L, B, N, classes + 1), target_labels (L, B, N, G) -> (L, B, N, G)."""
        return -logits.softmax(-1).gather(-1, target_labels)
