"""Running a detector on one image with its attention recorded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import mmcv
import numpy as np
import torch
from torch import nn

from mmcondetr.datasets.read_image import array_pipeline, read_image
from mmcondetr.errors import UserError
from mmcondetr.visualization.image_attention import ImageAttention
from mmcondetr.visualization.record import record_attention

Image = str | os.PathLike | np.ndarray


class Detection(NamedTuple):
    """The detection of one object query.

    Attributes:
        query: index of the object query.
        label: index of the highest-scoring class in the last layer.
        name: name of the class.
        score: its probability.
        box: (x1, y1, x2, y2) in pixels of the original image.
    """

    query: int
    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]


class AttendedImage(NamedTuple):
    """An image with a model's attention and predictions.

    Attributes:
        pixels: (height, width, 3) uint8, BGR, the input of the model's pipeline.
        attention: maps, boxes and scores of every layer.
        class_names: by label.
    """

    pixels: np.ndarray
    attention: ImageAttention
    class_names: tuple[str, ...]

    def detection(self, query: int) -> Detection:
        """The best class of one query.

        Raises:
            UserError: there is no such query.
        """
        scores = self.attention.scores[-1]
        if not 0 <= query < len(scores):
            raise UserError(
                f'There is no query {query}: this model has {len(scores)}, numbered 0 to {len(scores) - 1}.'
            )
        score, label = scores[query].max(dim=-1)
        box = tuple(self.attention.boxes[-1, query].tolist())
        return Detection(query, int(label), self.class_name(int(label)), float(score), box)

    def best_detections(self, count: int, score_threshold: float = 0.0) -> list[Detection]:
        """The ``count`` queries with the highest class scores, best first.

        Raises:
            UserError: no score reaches the threshold.
        """
        best = self.attention.scores[-1].max(dim=-1).values
        order = best.argsort(descending=True)[:count].tolist()
        found = [self.detection(query) for query in order if best[query] >= score_threshold]
        if not found:
            top = self.detection(int(best.argmax()))
            raise UserError(
                f'No detection reaches the score threshold {score_threshold:g}; the best is {top.name} '
                f'with {top.score:.3f}, of query {top.query}. Lower the threshold or select a query.'
            )
        return found

    def class_name(self, label: int) -> str:
        """The name of a class, or its index if the model has no class names."""
        return self.class_names[label] if label < len(self.class_names) else f'class {label}'


def attend(
    model: nn.Module,
    image: Image,
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
    encoder_layers: Sequence[int] = (),
) -> AttendedImage:
    """Run one image through the model's test pipeline and the model, recording its attention.

    Args:
        model: a detector built by ``mmdet.apis.init_detector``.
        image: a path or an array; see :func:`read_image`.
        layers: decoder layers to record; all if None.
        queries: object queries to record; all if None.
        encoder_layers: encoder layers to record.

    Raises:
        UserError: see :func:`read_image` and :func:`~mmcondetr.visualization.record_attention`; or the model has no
            config with a test pipeline; or its checkpoint has other classes.
    """
    pixels = read_image(image)
    if not hasattr(model, 'cfg'):
        raise UserError(
            "The model has no attribute 'cfg' to take the test pipeline from: build it with mmdet.apis.init_detector."
        )
    if hasattr(model, 'check_trained'):  # ours only
        model.check_trained()
    item = array_pipeline(model.cfg)(dict(img=pixels, img_id=0))
    attention = record_item(model, item, layers, queries, encoder_layers)
    return AttendedImage(pixels, attention, tuple(getattr(model, 'dataset_meta', {}).get('classes', ())))


def record_item(
    model: nn.Module,
    item: dict,
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
    encoder_layers: Sequence[int] = (),
) -> ImageAttention:
    """Run one item of a test pipeline through the model, recording its attention; arguments as in :func:`attend`."""
    data = model.data_preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False)
    with torch.no_grad(), record_attention(model, layers, queries, encoder_layers) as recorded:
        model(**data, mode='tensor')
    return recorded[0]


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """(height, width, 3) BGR -> RGB."""
    return mmcv.bgr2rgb(pixels)
