"""Which row of a class head belongs to which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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
"""COCO's classes in the order of their category ids: the rows of our heads and of mmdet's."""

# The authors' heads and Hugging Face's have 91 rows, one per category id; COCO's annotations never use these ids.
UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(number for number in range(91) if number not in UNUSED_IDS)

Names = Sequence[str | None]

COCO_91: tuple[str | None, ...] = tuple(
    None if number in UNUSED_IDS else COCO_80[COCO_IDS.index(number)] for number in range(91)
)

UNUSED_WEIGHT, UNUSED_BIAS = 0.0, -20.0
"""What the 11 unused rows come back as when a head of 80 classes is written with 91 rows: a probability of 2e-9."""


def default_names(count: int) -> Names | None:
    """Names of a head that comes with none: COCO's where it has 80 or 91 rows."""
    return {80: COCO_80, 91: COCO_91}.get(count)


def used(names: Names) -> tuple[str, ...]:
    """Without the rows that stand for no class."""
    return tuple(name for name in names if name is not None)


def is_coco(names: Names | None) -> bool:
    return names is not None and used(names) == COCO_80


def choose_rows(given: Names | None, given_count: int, wanted: Names | None, wanted_count: int) -> list[int | None]:
    """For each row of a head the row of another head to take, or None.

    Args:
        given: names of the rows that there are; None if unknown.
        given_count: how many there are.
        wanted: names of the rows to be filled; None if unknown.
        wanted_count: how many there are.
    """
    if wanted is None and is_coco(given):
        wanted = default_names(wanted_count)
    if given is not None and wanted is not None and tuple(given) != tuple(wanted):
        number = {name: index for index, name in reversed(list(enumerate(given))) if name is not None}
        return [number.get(name) for name in wanted]
    return list(range(given_count)) if given_count == wanted_count else [None] * wanted_count


def take_rows(
    tensors: Mapping[str, Tensor], rows: Sequence[int | None], start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The head's tensors with the chosen rows; rows that are None keep what ``start`` has there."""
    result = dict(tensors)
    to = torch.tensor([index for index, row in enumerate(rows) if row is not None], dtype=torch.long)
    source = torch.tensor([row for row in rows if row is not None], dtype=torch.long)
    for name in HEAD:
        head = start[name].detach().clone()
        head[to.to(head.device)] = tensors[name][source.to(tensors[name].device)].to(head)
        result[name] = head
    return result


def unused_rows(tensors: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """A head of ``count`` rows, all of them those of an unused id."""
    weight, bias = (tensors[name] for name in HEAD)
    return {
        HEAD[0]: weight.new_full((count, *weight.shape[1:]), UNUSED_WEIGHT),
        HEAD[1]: bias.new_full((count,), UNUSED_BIAS),
    }
