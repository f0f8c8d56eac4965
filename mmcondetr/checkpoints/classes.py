"""Which row of a class head belongs to which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmcondetr.checkpoints.coco_panoptic_classes import STUFF, STUFF_IDS

HEAD = ('bbox_head.class_embed.weight', 'bbox_head.class_embed.bias')

# fmt: off
COCO_80: tuple[str, ...] = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat', 'traffic light',
    'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep', 'cow',
    'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella', 'handbag', 'tie', 'suitcase', 'frisbee',
    'skis', 'snowboard', 'sports ball', 'kite', 'baseball bat', 'baseball glove', 'skateboard', 'surfboard',
    'tennis racket', 'bottle', 'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple',
    'sandwich', 'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
    'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors', 'teddy bear',
    'hair drier', 'toothbrush',
)
# fmt: on
"""COCO's classes in the order of their category ids, which are the rows of our heads and mmdet's."""

# The heads of the authors and Hugging Face have 91 rows, one per category id; COCO's annotations do not use these ids.
UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(number for number in range(91) if number not in UNUSED_IDS)

Names = Sequence[str | None]

COCO_91: tuple[str | None, ...] = tuple(
    None if number in UNUSED_IDS else COCO_80[COCO_IDS.index(number)] for number in range(91)
)

BACKGROUND = 'no object'
"""The last row of a head with a softmax, such as DETR's."""

COCO_PANOPTIC = COCO_80 + STUFF
"""Things, then stuff, each by category id: the rows of a head for mmdet's panoptic COCO."""

_STUFF_BY_ID = dict(zip(STUFF_IDS, STUFF))
DETR_PANOPTIC: Names = (*COCO_91, *(_STUFF_BY_ID.get(number) for number in range(91, 250)), BACKGROUND)
"""DETR's panoptic models: 250 rows by category id, most of them unused, and background."""

UNUSED_WEIGHT, UNUSED_BIAS = 0.0, -20.0
"""Values of the 11 unused rows when a head of 80 classes is written with 91 rows: a probability of 2e-9."""


def default_names(count: int) -> Names | None:
    """Default class names of a head without any: COCO's if the number of rows is one of theirs."""
    known: dict[int, Names] = {
        80: COCO_80,
        81: (*COCO_80, BACKGROUND),
        91: COCO_91,
        92: (*COCO_91, BACKGROUND),
        133: COCO_PANOPTIC,
        134: (*COCO_PANOPTIC, BACKGROUND),
        251: DETR_PANOPTIC,
    }
    return known.get(count)


def used(names: Names) -> tuple[str, ...]:
    """The names without rows that represent no class."""
    return tuple(name for name in names if name is not None)


def is_coco(names: Names | None) -> bool:
    return names is not None and used(names) == COCO_80


def choose_rows(given: Names | None, given_count: int, target: Names | None, target_count: int) -> list[int | None]:
    """For each row of the target head, the matching row of the given head, or None.

    Args:
        given: class names of the given head; None if unknown.
        given_count: its number of rows.
        target: class names of the target head; None if unknown.
        target_count: its number of rows.
    """
    if target is None and given is not None and given == default_names(given_count):
        target = default_names(target_count)
    if given is not None and target is not None and tuple(given) != tuple(target):
        number = {name: index for index, name in reversed(list(enumerate(given))) if name is not None}
        return [number.get(name) for name in target]
    return list(range(given_count)) if given_count == target_count else [None] * target_count


def take_rows(
    tensors: Mapping[str, Tensor], rows: Sequence[int | None], start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors with the chosen rows in the head; rows that are None are taken from ``start``."""
    result = dict(tensors)
    to = torch.tensor([index for index, row in enumerate(rows) if row is not None], dtype=torch.long)
    source = torch.tensor([row for row in rows if row is not None], dtype=torch.long)
    for name in HEAD:
        head = start[name].detach().clone()
        head[to.to(head.device)] = tensors[name][source.to(tensors[name].device)].to(head)
        result[name] = head
    return result


def unused_rows(tensors: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """A head of ``count`` rows, all with the values of an unused id."""
    weight, bias = (tensors[name] for name in HEAD)
    return {
        HEAD[0]: weight.new_full((count, *weight.shape[1:]), UNUSED_WEIGHT),
        HEAD[1]: bias.new_full((count,), UNUSED_BIAS),
    }
