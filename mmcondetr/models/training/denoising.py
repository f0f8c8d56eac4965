"""DN-DETR: noised ground truth as additional queries in training (Li et al., CVPR 2022, arXiv 2203.01305).

A denoising query starts from the box and the class of a known object, both noised, and must reconstruct the object. Its
target is known, so no matching is needed. The decoder thus learns to refine boxes from the first step on, while the
matching is still unstable. Inference does without them.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from mmdet.structures import SampleList
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmcondetr.errors import UserError
from mmcondetr.models.attention import Among, DotProductAttention
from mmcondetr.models.decoder import Queries
from mmcondetr.models.matching import Matches, ground_truth
from mmcondetr.models.training.groups import check_divisible, fold
from mmcondetr.models.training.noise import draw_boxes, draw_labels
from mmcondetr.models.training.queries import ObjectQueries, build_training_queries, check_count

_NO_OBJECT = -1e4  # the class logit of an empty slot: its focal loss and gradient are zero


def attend_apart(
    attention: DotProductAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_matching: int,
    num_seen: int,
    num_groups: int,
    empty: Tensor | None,
    among: Among | None,
) -> Tensor:
    """Self-attention: matching queries see each other; a denoising group sees itself and the matching queries.

    Args:
        attention: softmax attention.
        q: (B, M + P T, D), the M matching queries first, then P groups of T slots; k and v alike.
        num_matching: M.
        num_seen: how many of the matching queries, counted from the first, denoising queries see.
        num_groups: P.
        empty: (B, T), True where a slot has no object, which no query sees; None if no slot is empty.
        among: restricts which matching queries see each other; None if all do.

    Returns:
        (B, M + P T, D).
    """
    matching = [x[:, :num_matching] for x in (q, k, v)]
    q_noised, k_noised, v_noised = (fold(x[:, num_matching:], num_groups, 1) for x in (q, k, v))  # (B P, T, D)
    keys, values = (
        torch.cat((x[:, :num_seen].repeat_interleave(num_groups, dim=0), noised), dim=1)
        for x, noised in ((k, k_noised), (v, v_noised))
    )  # (B P, seen + T, D)
    mask = None if empty is None else F.pad(empty, (num_seen, 0)).repeat_interleave(num_groups, dim=0)
    noised = attention((q_noised,), (keys,), values, mask).unflatten(0, (-1, num_groups)).flatten(1, 2)
    q, k, v = matching
    return torch.cat((attention((q,), (k,), v) if among is None else among(attention, q, k, v), noised), dim=1)


class Denoising(ObjectQueries):
    """Base class: P groups of denoising queries on top of the object queries.

    Each group has one query for each object of its image. If an image has fewer objects than another of the batch, the
    remaining slots are empty: masked out and excluded from the loss. (In the authors' code an object's query sees the
    empty slots of its group, so it depends on the other images in the batch.)

    The losses are the head's, on all layers, divided by P times the boxes; their names begin with ``denoising_``.

    Args:
        num_groups: P.
        label_noise: probability of replacing a class by a random one.
        box_noise: the scale of :func:`draw_boxes`.
        matching: config of the matching queries, such as QueryGroups; None for the object queries. Denoising queries
            see the first of several groups, the one used in inference.

    Raises:
        ValueError: a number is of another type or out of range.
        UserError: matching is denoising, the decoder's reference points are of another kind, or its self-attention
            cannot be split.
    """

    #: Class of the decoder's reference points.
    reference_points: type[nn.Module]

    def __init__(
        self, num_groups: int = 5, label_noise: float = 0.2, box_noise: float = 0.4, matching: dict | None = None
    ) -> None:
        super().__init__()
        check_count(self, 'num_groups', num_groups)
        for name, noise in (('label_noise', label_noise), ('box_noise', box_noise)):
            if not isinstance(noise, (int, float)) or not 0 <= noise <= 1:
                raise ValueError(f'{type(self).__name__}: {name} must be a number from 0 to 1, got {noise!r}')
        self.num_groups, self.label_noise, self.box_noise = num_groups, label_noise, box_noise
        self.matching = build_training_queries(matching, 'model.training_queries.matching')
        if isinstance(self.matching, Denoising):
            raise UserError(
                f'model.training_queries.matching: the matching queries of {type(self).__name__} cannot be denoising '
                f'queries themselves, as those of {type(self.matching).__name__} are.'
            )

    def attach(self, detector: nn.Module) -> None:
        """Create what embeds the noised objects (:meth:`embed_with`)."""
        name, reference_point = type(self).__name__, detector.decoder.reference_point
        check_divisible(detector.decoder, name)
        if not isinstance(reference_point, self.reference_points):
            kinds = self.reference_points.__name__, type(reference_point).__name__
            raise UserError(
                f'model.training_queries: {name} needs model.decoder.reference_point of type mmcondetr.{kinds[0]}, not '
                f'{kinds[1]}.'
            )
        self.num_classes, self.num_queries = detector.bbox_head.num_classes, detector.query_embedding.num_embeddings
        self.embed_with(detector.decoder.embed_dims, reference_point)
        self.matching.attach(detector)

    def embed_with(self, embed_dims: int, reference_point: nn.Module) -> None:
        """Create the parameters; called once."""
        raise NotImplementedError

    def embed(self, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The queries of noised objects.

        Args:
            labels: (B P, T) classes.
            boxes: (B P, T, 4) cxcywh, fractions of the image.

        Returns:
            Object queries (B P, T, D or 4), contents (B P, T, D) and, where they are given, logits of the reference
            points (B P, T, 2).
        """
        raise NotImplementedError

    def matching_content(self, object_query: Tensor) -> Tensor:
        """f before the first layer of the matching queries, (B, M, D or 4) -> (B, M, D)."""
        raise NotImplementedError

    def forward(self, object_query: Tensor, samples: SampleList) -> Queries:
        """The matching queries, then the groups: (1, N, D or 4) -> (B, M + P T, D or 4), and their contents."""
        asked = self.matching(object_query, samples)
        _, labels, boxes = ground_truth(object_query, samples)
        empty = ~in_slots([len(each) for each in labels], object_query.device)  # (B, T)
        labels, boxes = pad_sequence(labels, True), pad_sequence(boxes, True).to(object_query)  # (B, T), (B, T, 4)
        labels, boxes, absent = (x.repeat_interleave(self.num_groups, dim=0) for x in (labels, boxes, empty))
        with torch.no_grad():
            boxes = draw_boxes(boxes, self.box_noise).masked_fill(absent[..., None], 0.5)  # (B P, T, 4)
            labels = draw_labels(labels, self.num_classes, self.label_noise)
        noised, content, points = self.embed(labels, boxes)
        content = content.masked_fill(absent[..., None], 0.0)
        noised, content, points = (
            x if x is None else x.unflatten(0, (-1, self.num_groups)).flatten(1, 2) for x in (noised, content, points)
        )
        matching = asked.object_query.expand(len(samples), -1, -1)
        among = partial(
            attend_apart,
            num_matching=matching.shape[1],
            num_seen=self.num_queries,
            num_groups=self.num_groups,
            empty=empty if empty.any() else None,
            among=asked.among,
        )
        content = torch.cat((self.matching_content(matching), content), dim=1)
        return Queries(torch.cat((matching, noised), dim=1), among, content, points)

    def loss(
        self, head: nn.Module, hidden_states: Tensor, references: Tensor, samples: SampleList
    ) -> dict[str, Tensor]:
        """The losses of the matching and of the denoising queries."""
        counts = [len(sample.gt_instances) for sample in samples]
        count = hidden_states.shape[2] - self.num_groups * max(counts)  # M
        losses = self.matching.loss(head, hidden_states[:, :, :count], references[:, :, :count], samples)
        logits, boxes = head(hidden_states[:, :, count:], references[:, :, count:])  # (L, B, P T, ...)
        matches, absent = self._known(counts, len(logits), logits.device)
        logits = logits.masked_fill(absent[None, :, :, None], _NO_OBJECT)
        num_boxes = boxes.new_tensor(max(self.num_groups * sum(counts), 1))
        for name, value in head.losses(logits, boxes, samples, num_boxes, matches).items():
            layer, point, term = name.rpartition('.')
            losses[f'{layer}{point}denoising_{term}'] = value
        return losses

    def _known(self, counts: list[int], num_layers: int, device: torch.device) -> tuple[Matches, Tensor]:
        """The object of each slot, given the images' object counts, and (B, P T), True where a slot is empty."""
        filled = in_slots(counts, device)[:, None].expand(-1, self.num_groups, -1)  # (B, P, T)
        image, group, target = filled.nonzero(as_tuple=True)
        query = group * filled.shape[2] + target
        layer = torch.arange(num_layers, device=device).repeat_interleave(len(image))
        return Matches(layer, *(x.repeat(num_layers) for x in (image, query, target))), ~filled.flatten(1)


def in_slots(counts: list[int], device: torch.device) -> Tensor:
    """(B, T), True in as many slots as each image has objects; T is the largest number of objects in an image."""
    return torch.arange(max(counts), device=device) < torch.tensor(counts, device=device)[:, None]
