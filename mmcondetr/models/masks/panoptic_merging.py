"""Merges overlapping masks into one panoptic map, in which each pixel belongs to one segment."""

from __future__ import annotations

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmcondetr.errors import UserError

INSTANCE_OFFSET = 1000  # mmdet's encoding of a pixel: class + 1000 * instance


class PanopticMerging:
    """Merges the masks of confident queries, tiny segments dropped, by DETR's rule or by MaskFormer's.

    DETR's gives each pixel to the mask with the largest logit, so none is left without a segment. MaskFormer's gives it
    to the largest product of score and probability, if the probability is above one half, and drops masks that others
    cover for the most part.

    Args:
        num_classes: things and stuff.
        num_things: classes below are things, the others stuff.
        score_threshold: of kept queries; the default is for sigmoid scores (measured in docs/mask-head.md), DETR's for
            its softmax is 0.85.
        min_area: in pixels; segments of this size or less are dropped, until none is left.
        overlap: the share of a mask that MaskFormer's rule must leave to it, 0.8 in its code; None for DETR's rule.

    Raises:
        UserError: there are more things than classes, or ``overlap`` is no share.

    Paper: DETR, section 4.4, and its code (``PostProcessPanoptic``); MaskFormer (arXiv 2107.06278), section 3.4.
    """

    def __init__(
        self,
        num_classes: int,
        num_things: int,
        score_threshold: float = 0.25,
        min_area: int = 4,
        overlap: float | None = None,
    ) -> None:
        if not 0 <= num_things <= num_classes:
            raise UserError(
                f'model.mask_head.panoptic.num_things={num_things}: must lie between 0 and num_classes={num_classes}, '
                'the number of things and stuff together.'
            )
        if overlap is not None and not 0 <= overlap <= 1:
            raise UserError(f'model.mask_head.panoptic.overlap={overlap}: must be None, or a share from 0 to 1.')
        self.num_classes, self.num_things = num_classes, num_things
        self.score_threshold, self.min_area, self.overlap = score_threshold, min_area, overlap

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

    def merge(self, logits: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        """Merge.

        Args:
            logits: (M, height, width).
            labels: (M,).
            scores: (M,).

        Returns:
            (height, width): class + 1000 * instance, instances of things counted from 1; num_classes where nothing is
            detected.
        """
        if self.overlap is not None and len(logits):
            return self._merge_by_score(logits, labels, scores)
        while len(logits):
            owner = self._merge_stuff(logits.argmax(0), labels)
            areas = owner.flatten().bincount(minlength=len(labels))
            merged = self._merge_stuff(torch.arange(len(labels), device=labels.device), labels)
            kept = areas[merged] > self.min_area
            if kept.all():
                return self._number(labels, kept)[owner]
            logits, labels = logits[kept], labels[kept]
        return torch.full(logits.shape[1:], self.num_classes, dtype=torch.long, device=logits.device)

    def _merge_by_score(self, logits: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        """MaskFormer's rule for one mask or more; arguments and result as in :meth:`merge`."""
        inside = logits > 0  # a probability above one half
        owner = (scores[:, None, None] * logits.sigmoid()).argmax(0)  # (height, width)
        covered = inside.gather(0, owner[None])[0]
        owned, left = (each.bincount(minlength=len(labels)) for each in (owner.flatten(), owner[covered]))
        kept = (owned >= self.overlap * inside.flatten(1).sum(1)) & (left > self.min_area)
        return torch.where(covered & kept[owner], self._number(labels, kept)[owner], self.num_classes)

    def _merge_stuff(self, places: Tensor, labels: Tensor) -> Tensor:
        """Map each index of a stuff class to the first index of that class."""
        same = labels[:, None] == labels[None]  # (M, M)
        first = same.int().argmax(1)
        own = torch.arange(len(labels), device=labels.device)
        return torch.where(labels >= self.num_things, first, own)[places]

    def _number(self, labels: Tensor, kept: Tensor) -> Tensor:
        """(M,), the value of each kept segment's pixels."""
        is_thing = labels < self.num_things
        return labels + INSTANCE_OFFSET * (is_thing & kept).cumsum(0) * is_thing
