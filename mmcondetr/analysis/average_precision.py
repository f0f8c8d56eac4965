"""COCO's AP by class, with pycocotools, and AP at one IoU from lists of correct and wrong predictions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmcondetr.analysis.samples import Sample


def ap_by_class(samples: Sequence[Sample], count: int) -> list[tuple[float, float]]:
    """(AP, AP50) of every class, 0 to 1; NaN for a class without objects.

    Args:
        samples: the images.
        count: number of classes.
    """
    evaluation = COCOeval(*_as_coco(samples, count), 'bbox')
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, :, 0, -1]  # (IoUs, recalls, classes), all sizes, 100 per image
    found = []
    for label in range(count):
        values = precision[:, :, label]
        found.append(
            (float(values.mean()), float(values[0].mean())) if (values > -1).any() else (float('nan'), float('nan'))
        )
    return found


def _as_coco(samples: Sequence[Sample], count: int) -> tuple[COCO, COCO]:
    images = [dict(id=number) for number in range(1, len(samples) + 1)]
    categories = [dict(id=label) for label in range(count)]
    truth, found = COCO(), COCO()
    for coco, is_truth in ((truth, True), (found, False)):
        entries = list(_annotations(samples, is_truth))
        coco.dataset = dict(images=images, categories=categories, annotations=entries)
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
    return truth, found


def _annotations(samples: Sequence[Sample], truth: bool):
    number = 0
    for image_id, sample in enumerate(samples, start=1):
        boxes, labels = (sample.true_boxes, sample.true_labels) if truth else (sample.boxes, sample.labels)
        for index, ((x1, y1, x2, y2), label) in enumerate(zip(boxes.tolist(), labels.tolist())):
            number += 1
            yield dict(
                id=number,
                image_id=image_id,
                category_id=label,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                area=(x2 - x1) * (y2 - y1),
                iscrowd=int(sample.crowd[index]) if truth else 0,
                **({} if truth else dict(score=float(sample.scores[index]))),
            )


def interpolated_ap(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    """AP of one class: the monotone envelope of precision, averaged at 101 recalls.

    Args:
        scores: (n,) of the predictions.
        right: (n,) bool, whether each is correct.
        objects: number of ground truth objects, at least 1.
    """
    right = right[np.argsort(-scores, kind='mergesort')]
    hits = right.cumsum()
    recall, precision = hits / objects, hits / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side='left')
    return float(np.append(precision, 0.0)[places.clip(max=len(precision))].mean())
