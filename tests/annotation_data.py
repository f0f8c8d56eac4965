"""Valid COCO annotations for tests to spoil, and boxes in other formats."""

from __future__ import annotations

import numpy as np

CLASSES = ('cat', 'dog')


def make(count: int = 60, seed: int = 0) -> dict:
    """Twenty images of 640 x 480 with boxes inside them."""
    rng = np.random.default_rng(seed)
    images = [dict(id=10 + index, file_name=f'{index}.png', width=640, height=480) for index in range(20)]
    annotations = []
    for index in range(count):
        size = np.array([640, 480]) * rng.uniform(0.05, 0.5, 2)
        corner = (np.array([640, 480]) - size) * rng.uniform(0, 1, 2)
        box = [round(float(value), 2) for value in (*corner, *size)]
        area = box[2] * box[3]
        entry = dict(id=index + 1, image_id=10 + index % 20, category_id=1 + index % 2, bbox=box, area=area, iscrowd=0)
        annotations.append(entry)
    return dict(images=images, annotations=annotations, categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])


def from_xywh(boxes: np.ndarray, sizes: np.ndarray, form: str) -> np.ndarray:
    """The inverse of ``to_xywh``, implemented independently."""
    x, y, w, h = boxes.T
    columns = dict(
        xywh=[x, y, w, h],
        xyxy=[x, y, x + w, y + h],
        cxcywh=[x + w / 2, y + h / 2, w, h],
        yxhw=[y, x, h, w],
        yxyx=[y, x, y + h, x + w],
    )
    values = np.stack(columns[form.rstrip('01')], axis=1)
    whole = dict(xywh01=1, xyxy01=1, cxcywh01=1, xywh100=100, xyxy100=100, cxcywh100=100).get(form)
    return values if whole is None else whole * values / np.hstack([sizes, sizes])
