"""The ground truth objects and predictions of each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcondetr.datasets.image_roots import find_image_root
from mmcondetr.datasets.own_json import load_json
from mmcondetr.errors import UserError


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with G ground truth objects and P predictions, best first. Boxes are xyxy in pixels.

    Attributes:
        path: of the image.
        true_boxes: (G, 4).
        true_labels: (G,).
        crowd: (G,) bool, groups of objects, in which predictions are neither correct nor wrong.
        boxes: (P, 4).
        scores: (P,).
        labels: (P,).
    """

    path: str
    true_boxes: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def make_sample(path: str, truth: Sequence[tuple], predicted: Sequence[tuple]) -> Sample:
    """Make a sample from the (box, label, crowd) and (box, score, label) tuples of one image."""
    predicted = sorted(predicted, key=lambda one: -one[1])
    return Sample(
        path,
        np.array([box for box, *_ in truth], dtype=float).reshape(-1, 4),
        np.array([label for _, label, _ in truth], dtype=int),
        np.array([crowd for *_, crowd in truth], dtype=bool),
        np.array([box for box, *_ in predicted], dtype=float).reshape(-1, 4),
        np.array([score for _, score, _ in predicted], dtype=float),
        np.array([label for *_, label in predicted], dtype=int),
    )


def read_samples(truth: str, predictions: str, images: str | None = None) -> tuple[list[Sample], tuple[str, ...]]:
    """Read two COCO JSONs, matching images by path or name and classes by name.

    Args:
        truth: annotations.
        predictions: annotations with scores, as written by ``mmcondetr predict``.
        images: folder of the images, for the pictures; if None, found near ``truth``.

    Returns:
        - one sample for each image that is in both files;
        - class names by label.

    Raises:
        UserError: a file cannot be read, predictions lack scores, or no image or no class is in both.
    """
    true, found = load_json(Path(truth)), load_json(Path(predictions))
    names = tuple(category['name'] for category in true['categories'])
    true_label = {category['id']: names.index(category['name']) for category in true['categories']}
    label = {c['id']: names.index(c['name']) for c in found['categories'] if c['name'] in names}
    if not label:
        predicted_names = ', '.join(category['name'] for category in found['categories'])
        raise UserError(
            f"'{truth}' and '{predictions}' have no class in common: {', '.join(names)}, and {predicted_names}."
        )
    pairs = _match_images(true['images'], found['images'], truth, predictions)
    shared = [image for image, _ in pairs]
    truths, predicted = _by_image(true), _by_image(found)
    root = find_image_root(Path(truth).resolve(), shared, _part_of(truth), images)
    samples = []
    for image, number in pairs:
        actual = [
            (_xyxy(entry['bbox']), true_label[entry['category_id']], bool(entry.get('iscrowd', 0)))
            for entry in truths.get(image['id'], ())
            if entry['category_id'] in true_label
        ]
        entries = predicted.get(number, ())
        if any('score' not in entry for entry in entries):
            raise UserError(f"'{predictions}' has annotations without a score: it does not contain predictions.")
        guesses = [
            (_xyxy(entry['bbox']), entry['score'], label[entry['category_id']])
            for entry in entries
            if entry['category_id'] in label
        ]
        samples.append(make_sample(os.path.join(root, image['file_name']), actual, guesses))
    return samples, names


def _match_images(true: list[dict], found: list[dict], truth: str, predictions: str) -> list[tuple[dict, Any]]:
    """Pairs (image of the truth, id of the same image of the predictions).

    Paths are compared if they match wherever names do; otherwise they are relative to other folders, and names are.
    """
    names = {_base(image['file_name']) for image in true}
    expected = sum(_base(image['file_name']) in names for image in found)
    if not expected:
        raise UserError(f"'{truth}' and '{predictions}' have no image name in common.")
    for key in (str, _base):
        ids = {key(image['file_name']): image['id'] for image in found}
        pairs = [(image, ids[key(image['file_name'])]) for image in true if key(image['file_name']) in ids]
        if len(ids) == len(found) and len({number for _, number in pairs}) == len(pairs) == expected:
            return pairs
    raise UserError(
        f"'{truth}' or '{predictions}' has several images of the same name, and their paths do not agree: predict the "
        'folder that the paths of the former are relative to.'
    )


def labels_by_name(predicted: Sequence[str], true: Sequence[str]) -> dict[int, int]:
    """Label of a prediction -> label of the truth, by the classes' names; classes that the truth lacks are left out.

    Raises:
        UserError: they have no class in common.
    """
    labels = {label: true.index(name) for label, name in enumerate(predicted) if name in true}
    if not labels:
        raise UserError(f'Model and data have no class in common: {", ".join(predicted)}, and {", ".join(true)}.')
    return labels


def _part_of(truth: str) -> str:
    """The part of a data set that a file name indicates; validation by default."""
    return next((part for part in ('train', 'test') if part in os.path.basename(truth).lower()), 'val')


def _base(name: str) -> str:
    return os.path.basename(str(name))


def _by_image(content: dict[str, Any]) -> dict[Any, list[dict]]:
    found: dict[Any, list[dict]] = {}
    for entry in content['annotations']:
        found.setdefault(entry['image_id'], []).append(entry)
    return found


def _xyxy(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes (n, 4) and (m, 4), xyxy: (n, m)."""
    shared = _shared(boxes, others)
    area, other = ((b[:, 2:] - b[:, :2]).clip(0).prod(axis=1) for b in (boxes, others))
    return shared / np.maximum(area[:, None] + other[None] - shared, 1e-12)


def covered(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The fraction of each box (n, 4) that is covered by each of the others (m, 4): (n, m)."""
    return _shared(boxes, others) / np.maximum((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1), 1e-12)[:, None]


def _shared(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return (high - low).clip(0).prod(axis=2)
