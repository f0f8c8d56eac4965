"""From masks that overlap to one panoptic map: every pixel belongs to one segment."""

from __future__ import annotations

import torch
from mmengine.structures import InstanceData
from torch import Tensor

INSTANCE_OFFSET = 1000  # mmdet's: a pixel is class + 1000 * instance


class PanopticMerging:
    """DETR's merging: confident queries, each pixel to the mask with the largest logit, tiny segments dropped.

    Args:
        num_classes: things and stuff.
        num_things: classes below are things, the others stuff.
        score_threshold: of kept queries. DETR's 0.85 is for its softmax; docs/masks.md says what sigmoid scores need.
        min_area: in pixels; segments of this size or less are dropped, until none is left.

    Paper: DETR, section 4.4, and its code (``PostProcessPanoptic``).
    """

    def __init__(self, num_classes: int, num_things: int, score_threshold: float = 0.85, min_area: int = 4) -> None:
        self.num_classes, self.num_things = num_classes, num_things
        self.score_threshold, self.min_area = score_threshold, min_area

    def choose(self, result: InstanceData) -> Tensor:
        """Places of the detections that are merged: confident ones, of each query the best class.

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
            (height, width): class + 1000 * instance, instances of things counted from 1; the number of classes where
            there is nothing.
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
        """Every place of a kind of stuff -> the first place of that kind."""
        same = labels[:, None] == labels[None]  # (M, M)
        first = same.int().argmax(1)
        own = torch.arange(len(labels), device=labels.device)
        return torch.where(labels >= self.num_things, first, own)[places]

    def _number(self, labels: Tensor) -> Tensor:
        """(M,) what the pixels of each get."""
        is_thing = labels < self.num_things
        return labels + INSTANCE_OFFSET * is_thing.cumsum(0) * is_thing
