"""Compares an exported file's detections with the PyTorch model's, on images of several sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import nn

from mmcondetr.runtime.images import resize_image, stack_images
from mmcondetr.runtime.masks import Sizes, finish_masks
from mmcondetr.runtime.sessions import Session

#: Largest difference allowed: of a score, and of a box's side as a fraction of the image.
LIMIT = 1e-4
#: Largest share of pixels on which masks may differ, because their logits are almost zero.
MASK_LIMIT = 1e-3
#: Of a file that only approximates the model: the score from which detections are compared.
_LEAST_SCORE = 0.3
#: Height and width of the images as fractions of the resize rule's result.
_SIZES = ((1.0, 1.0), (0.75, 0.75), (0.6, 0.9))


@dataclass(frozen=True)
class Comparison:
    """One batch in PyTorch and in the exported file.

    Attributes:
        sizes: (height, width) of each image, pixels; the batch is as large as the largest.
        boxes: largest difference of a box's side, as a fraction of the image; infinite if a detection is missing.
        scores: largest difference of a score.
        masks: largest share of an image's pixels on which the masks of a detection differ; None without masks.
    """

    sizes: tuple[tuple[int, int], ...]
    boxes: float
    scores: float
    masks: float | None = None

    @property
    def passed(self) -> bool:
        """Whether boxes and scores are within :data:`LIMIT`, and masks within :data:`MASK_LIMIT`."""
        return max(self.boxes, self.scores) <= LIMIT and (self.masks or 0.0) <= MASK_LIMIT


def compare(
    detector: nn.Module, session: Session, images: Sequence[np.ndarray], approximate: bool = False
) -> Iterator[Comparison]:
    """Run the model and the file on the images in three sizes, one at a time and, padded, two at a time.

    A file with a fixed batch size gets batches of this size.

    Args:
        detector: the model in PyTorch, on a CPU.
        session: the exported file.
        images: one or more, as OpenCV reads them.
        approximate: the file is not meant to equal the model (int8): each detection of the model with a score of at
            least 0.3 is compared with the file's nearest one of its class.
    """
    rule = session.metadata.resize
    sized = []
    for index, (rows, columns) in enumerate(_SIZES):
        image = resize_image(images[index % len(images)], rule)
        height, width = (max(33, round(side * share)) for side, share in zip(image.shape, (rows, columns)))
        sized.append(cv2.resize(image, (width, height)))
    if session.batch is None:
        batches = [[image] for image in sized] + [[sized[2], sized[0]]]
    else:
        batches = [[sized[(first + step) % 3] for step in range(session.batch)] for first in range(3)]
    for batch in batches:
        yield _compare(detector, session, batch, approximate)


def _compare(detector: nn.Module, session: Session, images: Sequence[np.ndarray], approximate: bool) -> Comparison:
    originals = np.array([(2 * image.shape[0], 3 * image.shape[1]) for image in images])  # as if they had been larger
    batch, sizes = stack_images(images, session.metadata.pad_size_divisor)
    found = [list(each) for each in zip(*session.run(batch, sizes, originals))]
    for each, image, original in zip(found, images, originals):
        each[3:] = [finish_masks(each[3], Sizes(batch.shape[2:], image.shape[:2], tuple(original)))] if each[3:] else []
    expected = _run_torch(detector, images, originals)
    measure = _approximate_differences if approximate else _differences
    differences = [measure(a, b, size) for a, b, size in zip(expected, found, originals)]
    worst_boxes, worst_scores, worst_masks = (max(each) for each in zip(*differences))
    shapes = tuple((int(height), int(width)) for height, width in sizes)
    return Comparison(shapes, worst_boxes, worst_scores, None if detector.mask_head is None else worst_masks)


@torch.no_grad()
def _run_torch(detector: nn.Module, images: Sequence[np.ndarray], originals: np.ndarray) -> list[tuple]:
    samples = [
        DetDataSample(
            metainfo=dict(
                img_shape=image.shape[:2],
                ori_shape=tuple(original),
                scale_factor=(image.shape[1] / original[1], image.shape[0] / original[0]),
            )
        )
        for image, original in zip(images, originals)
    ]
    tensors = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in images]
    with _unmerged(detector):
        results = [result.pred_instances for result in detector.test_step(dict(inputs=tensors, data_samples=samples))]
    names = ('bboxes', 'scores', 'labels', *(('masks',) if detector.mask_head is not None else ()))
    return [tuple(result[name].numpy() for name in names) for result in results]


@contextmanager
def _unmerged(detector: nn.Module) -> Iterator[None]:
    """Let a panoptic model give all of its detections, as its file does, instead of a map and the things."""
    head = detector.mask_head
    merging = None if head is None else head.panoptic
    if head is not None:
        head.panoptic = None
    try:
        yield
    finally:
        if head is not None:
            head.panoptic = merging


def _differences(expected: Sequence, found: Sequence, size: Sequence[int]) -> tuple[float, float, float]:
    """Largest difference of boxes, scores and masks between two lists of (boxes, scores, labels[, masks]), best first.

    Detections with almost equal scores may be in another order, and which of them are last in the list is arbitrary:
    each is compared with those of its label and score, except those with the score of the last one.
    """
    scale = np.array([*size[::-1], *size[::-1]], dtype=np.float32)
    (boxes, scores, labels, *masks), (other_boxes, other_scores, other_labels, *other_masks) = expected, found
    worst = worst_mask = 0.0
    for place, (box, score, label) in enumerate(zip(boxes, scores, labels)):
        if score <= scores[-1] + LIMIT and len(scores) > 1:
            break
        alike = (other_labels == label) & (np.abs(other_scores - score) <= LIMIT)
        distances = np.abs((other_boxes[alike] - box) / scale).max(axis=1)
        worst = max(worst, float(distances.min(initial=np.inf)))
        if masks and len(distances):
            other = other_masks[0][alike][distances.argmin()]
            worst_mask = max(worst_mask, float((masks[0][place] != other).mean()))
    return worst, float(np.abs(scores - other_scores).max(initial=0.0)), worst_mask


def _approximate_differences(expected: Sequence, found: Sequence, size: Sequence[int]) -> tuple[float, float, float]:
    """As :func:`_differences`, of detections with a score and the nearest of their label, whatever its score."""
    scale = np.array([*size[::-1], *size[::-1]], dtype=np.float32)
    (boxes, scores, labels, *masks), (other_boxes, other_scores, other_labels, *other_masks) = expected, found
    worst = [0.0, 0.0, 0.0]
    for place in np.flatnonzero(scores >= _LEAST_SCORE):
        alike = np.flatnonzero(other_labels == labels[place])
        if not len(alike):
            return float('inf'), 1.0, float(bool(masks))
        distances = np.abs((other_boxes[alike] - boxes[place]) / scale).max(axis=1)
        nearest = alike[distances.argmin()]
        differences = [distances.min(), abs(other_scores[nearest] - scores[place])]
        differences += [(masks[0][place] != other_masks[0][nearest]).mean() if masks else 0.0]
        worst = [max(former, float(each)) for former, each in zip(worst, differences)]
    return tuple(worst)


def table(comparisons: Sequence[Comparison], limited: bool = True) -> str:
    """A table of the comparisons, as text, with a column for masks if there are any.

    Args:
        limited: add a remark where a comparison exceeds the limits.
    """
    masks = any(comparison.masks is not None for comparison in comparisons)
    lines = [f'{"images (height x width)":<32}{"boxes":>10}{"scores":>10}' + f'{"masks":>10}' * masks]
    for comparison in comparisons:
        sizes = ' + '.join(f'{height}x{width}' for height, width in comparison.sizes)
        state = '' if comparison.passed or not limited else '  too much'
        last = f'{comparison.masks or 0.0:>10.1e}' * masks
        lines.append(f'{sizes:<32}{comparison.boxes:>10.1e}{comparison.scores:>10.1e}{last}{state}')
    return '\n'.join(lines)
