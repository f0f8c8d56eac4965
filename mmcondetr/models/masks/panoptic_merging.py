"""Merges overlapping masks into one panoptic map, in which each pixel belongs to one segment."""

from __future__ import annotations

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmcondetr.errors import UserError

INSTANCE_OFFSET = 1000  # mmdet's encoding of a pixel: class + 1000 * instance


class PanopticMerging:
    """DETR's merging: confident queries, each pixel to the mask with the largest logit, tiny segments dropped.

    Args:
        num_classes: things and stuff.
        num_things: classes below are things, the others stuff.
        score_threshold: of kept queries; the default is for sigmoid scores (measured in docs/mask-head.md), DETR's for
            its softmax is 0.85.
        min_area: in pixels; segments of this size or less are dropped, until none is left.

    Raises:
        UserError: there are more things than classes.

    Paper: DETR, section 4.4, and its code (``PostProcessPanoptic``).
    """

    def __init__(self, num_classes: int, num_things: int, score_threshold: float = 0.25, min_area: int = 4) -> None:
        if not 0 <= num_things <= num_classes:
            raise UserError(
                f'model.mask_head.panoptic.num_things={num_things}: must lie between 0 and num_classes={num_classes}, '
                'the number of things and stuff together.'
            )
        self.num_classes, self.num_things = num_classes, num_things
        self.score_threshold, self.min_area = score_threshold, min_area

    def choose(self, result: InstanceData) -> Tensor:
        """Indices of the detections that are merged: the confident ones, with the best class of each query.

        Args:
            result: ``scores`` and ``queries`` (K,), best first.
        """
        queries = result.queries.tolist()
        best = {query: place for place, query in reversed(list(enumerate(queries)))}
        scores = result.scores.tolist()
        kept = [place for place, query in enumerate(queries) if best[query] == place]
        return result.queries.new_tensor([place for place in kept if scores[place] > self.score_threshold])

    def merge(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Merge.

        Args:
            logits: (M, height, width).
            labels: (M,).

        Returns:
            (height, width): class + 1000 * instance, instances of things counted from 1; num_classes where nothing is
            detected.
        """
        while len(logits):
            owner = self._merge_stuff(logits.argmax(0), labels)
            areas = owner.flatten().bincount(minlength=len(labels))
            merged = self._merge_stuff(torch.arange(len(labels), device=labels.device), labels)
            kept = areas[merged] > self.min_area
            if kept.all():
                return self._number(labels)[owner]
            logits, labels = logits[kept], labels[kept]
        return torch.full(logits.shape[1:], self.num_classes, dtype=torch.long, device=logits.device)

    def _merge_stuff(self, places: Tensor, labels: Tensor) -> Tensor:
        """Map each index of a stuff class to the first index of that class."""
        same = labels[:, None] == labels[None]  # (M, M)
        first = same.int().argmax(1)
        own = torch.arange(len(labels), device=labels.device)
        return torch.where(labels >= self.num_things, first, own)[places]

    def _number(self, labels: Tensor) -> Tensor:
        """(M,), the value of each segment's pixels."""
        is_thing = labels < self.num_things
        return labels + INSTANCE_OFFSET * is_thing.cumsum(0) * is_thing
