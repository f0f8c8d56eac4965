"""Panoptic quality (Kirillov et al., CVPR 2019, section 4) from segment ids, without panopticapi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

VOID = 0  # the id of pixels that belong to no segment
COLUMNS = ('iou', 'tp', 'fp', 'fn')


class TrueSegment(NamedTuple):
    """A segment of the ground truth: its class index, and whether it is a crowd."""

    label: int
    is_crowd: bool = False


def count_segments(
    true_ids: np.ndarray,
    true_segments: Mapping[int, TrueSegment],
    predicted_ids: np.ndarray,
    predicted_labels: Mapping[int, int],
    num_classes: int,
) -> np.ndarray:
    """Match and count the segments of one image.

    A predicted and a true segment of one class match if their IoU, ignoring the prediction's pixels on void, is above
    one half, so at most one prediction matches. Crowds are never matched. An unmatched prediction does not count if
    more than half of it is on void or on crowds of its class (panopticapi considers one crowd per class only).

    Args:
        true_ids: (height, width); ids that are not in ``true_segments`` are void.
        true_segments: id -> segment.
        predicted_ids: (height, width), 0 where nothing is predicted.
        predicted_labels: id -> class index.
        num_classes: C.

    Returns:
        (C, 4): for each class the sum of the matches' IoU, and the numbers of matches, of unmatched predictions and of
        unmatched true segments.
    """
    counts = np.zeros((num_classes, len(COLUMNS)))
    true_index, predicted_index = [VOID, *true_segments], [VOID, *predicted_labels]
    shape = len(true_index), len(predicted_index)
    pairs = _renumber(true_ids, true_index) * shape[1] + _renumber(predicted_ids, predicted_index)
    overlap = np.bincount(pairs.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    true_area, predicted_area = overlap.sum(axis=1), overlap.sum(axis=0)
    ignored = overlap[0].copy()  # pixels of each prediction that are on void, later also those on crowds of its class
    matched_true, matched = set(), set()
    for i, (label, is_crowd) in enumerate(true_segments.values(), 1):
        for j, predicted_label in enumerate(predicted_labels.values(), 1):
            if label != predicted_label:
                continue
            if is_crowd:
                ignored[j] += overlap[i, j]
                continue
            union = true_area[i] + predicted_area[j] - overlap[i, j] - overlap[0, j]
            if 2 * overlap[i, j] > union:
                counts[label, :2] += overlap[i, j] / union, 1
                matched_true.add(i)
                matched.add(j)
    for i, (label, is_crowd) in enumerate(true_segments.values(), 1):
        counts[label, 3] += not is_crowd and i not in matched_true
    for j, label in enumerate(predicted_labels.values(), 1):
        counts[label, 2] += j not in matched and 2 * ignored[j] <= predicted_area[j]
    return counts


def _renumber(ids: np.ndarray, order: list[int]) -> np.ndarray:
    """Ids -> their index in ``order``; ids that are not in it -> 0."""
    known = np.array(order)
    by_size = np.argsort(known)
    place = np.searchsorted(known, ids, sorter=by_size).clip(max=len(order) - 1)
    place = by_size[place]
    return np.where(known[place] == ids, place, 0)


def summarise(counts: np.ndarray, is_thing: np.ndarray) -> dict[str, float]:
    """PQ, SQ and RQ, 0 to 100, for all classes, for things (``_th``) and for stuff (``_st``).

    Each is the mean over the classes present, as truth or as prediction; nan if there are none. PQ = IoU sum /
    (TP + FP / 2 + FN / 2), SQ the mean IoU of the matches, RQ = TP / (TP + FP / 2 + FN / 2).

    Args:
        counts: (C, 4), of all images.
        is_thing: (C,) bool.
    """
    qualities, seen = per_class(counts)
    result = {}
    for suffix, chosen in (('', np.ones_like(is_thing)), ('_th', is_thing), ('_st', ~is_thing)):
        rows = qualities[chosen & seen]
        means = rows.mean(axis=0) if len(rows) else np.full(3, np.nan)
        result.update({f'{name}{suffix}': 100 * float(mean) for name, mean in zip(('PQ', 'SQ', 'RQ'), means)})
    return result


def per_class(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PQ, SQ and RQ of each class (C, 3), 0 to 1, and which classes are present (C,)."""
    iou, tp, fp, fn = counts.T
    total = tp + fp / 2 + fn / 2
    seen = total > 0
    with np.errstate(invalid='ignore', divide='ignore'):
        recognition, segmentation = tp / total, iou / tp
        qualities = np.stack([iou / total, segmentation, recognition], axis=1)
    return np.nan_to_num(qualities), seen
