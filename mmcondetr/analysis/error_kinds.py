"""The kinds of errors defined by TIDE, and how much AP50 each kind costs.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, §2,
including the thresholds 0.5 and 0.1 and the oracles. Counts, and losses to 0.02 points of AP50, equal those of the
authors' code (tidecv 1.0.1), run beside it on 87 images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmcondetr.analysis.average_precision import interpolated_ap
from mmcondetr.analysis.samples import Sample, covered, overlaps

FOREGROUND, BACKGROUND = 0.5, 0.1
#: Kind -> its meaning.
KINDS = {
    'class': 'the box is right, but the class is wrong',
    'location': 'the class is right, but the box overlaps the object too little',
    'both': 'class and box are wrong',
    'duplicate': 'the object was already found with a higher score',
    'background': 'there is no object',
    'missed': 'no prediction overlaps the object',
}
RIGHT, IGNORED = 'right', 'ignored'


class Verdict(NamedTuple):
    """The kind of one prediction, and the index of the ground truth object that it refers to (-1 for none)."""

    kind: str
    target: int


@dataclass(frozen=True)
class Judged:
    """An image's verdicts, one per prediction, and its missed objects."""

    verdicts: list[Verdict]
    missed: list[int]


class Cost(NamedTuple):
    """The errors of one kind.

    Attributes:
        count: number above the score threshold.
        any_score: number among all predictions, of which a DETR makes as many as it has queries, however unlikely.
        ap50: the gain in AP50, which ranks all predictions, if those of any score were fixed.
    """

    count: int
    any_score: int
    ap50: float


def judge(sample: Sample) -> Judged:
    """Classify the predictions of an image. As in COCO, higher scores are matched first and crowds are ignored."""
    iou = overlaps(sample.boxes, sample.true_boxes)  # (P, G)
    same = sample.labels[:, None] == sample.true_labels[None]
    single = ~sample.crowd
    inside = covered(sample.boxes, sample.true_boxes) * (same & sample.crowd)
    used = np.zeros(len(sample.true_boxes), dtype=bool)
    verdicts: list[Verdict] = []
    for index in range(len(sample.boxes)):
        free = iou[index] * (same[index] & single & ~used)
        target = int(free.argmax()) if len(free) else -1
        if len(free) and free[target] >= FOREGROUND:
            used[target] = True
            verdicts.append(Verdict(RIGHT, target))
        elif len(free) and inside[index].max() >= FOREGROUND:
            verdicts.append(Verdict(IGNORED, -1))
        else:
            verdicts.append(Verdict('', -1))
    verdicts = [
        _kind(iou[index] * single, same[index], used) if not verdict.kind else verdict
        for index, verdict in enumerate(verdicts)
    ]
    near = {verdict.target for verdict in verdicts if verdict.kind in ('class', 'location')}
    missed = [g for g in np.flatnonzero(single & ~used).tolist() if g not in near]
    return Judged(verdicts, missed)


def _kind(iou: np.ndarray, same: np.ndarray, used: np.ndarray) -> Verdict:
    """The verdict on a wrong prediction, from its overlaps (G,) and which objects share its class and are found."""
    if not len(iou) or iou.max() < BACKGROUND:
        return Verdict('background', -1)
    mine, others = iou * same, iou * ~same
    if BACKGROUND <= mine.max() < FOREGROUND:
        return Verdict('location', int(mine.argmax()))
    if others.max() >= FOREGROUND:
        return Verdict('class', int(others.argmax()))
    if (mine * used).max() >= FOREGROUND:
        return Verdict('duplicate', int((mine * used).argmax()))
    return Verdict('both', int(iou.argmax()))


def measure_kinds(
    samples: Sequence[Sample], judged: Sequence[Judged], count: int, score_threshold: float
) -> tuple[float, dict[str, Cost]]:
    """AP50 (0 to 1), and the cost of every kind of error.

    Each kind is corrected on its own: a class or a location is replaced by the right one unless the object is found
    already, other wrong predictions are removed, missed objects are not counted.

    Args:
        samples: the images.
        judged: the verdicts on each.
        count: of classes.
        score_threshold: of ``Cost.count``; missed objects are those without a correct prediction above it, or one of
            the right class or location.
    """
    plain = _mean_ap50(samples, judged, count, None)
    costs = {}
    for kind in KINDS:
        if kind == 'missed':
            number = sum(len(judge(above(sample, score_threshold)).missed) for sample in samples)
            all_of_kind = sum(len(one.missed) for one in judged)
        else:
            scores = [
                sample.scores[index]
                for sample, one in zip(samples, judged)
                for index, verdict in enumerate(one.verdicts)
                if verdict.kind == kind
            ]
            number, all_of_kind = sum(score >= score_threshold for score in scores), len(scores)
        costs[kind] = Cost(int(number), all_of_kind, _mean_ap50(samples, judged, count, kind) - plain)
    return plain, costs


def above(sample: Sample, score: float) -> Sample:
    """The sample with its predictions that score at least this."""
    kept = sample.scores >= score
    return Sample(
        sample.path,
        sample.true_boxes,
        sample.true_labels,
        sample.crowd,
        sample.boxes[kept],
        sample.scores[kept],
        sample.labels[kept],
    )


def _mean_ap50(samples: Sequence[Sample], judged: Sequence[Judged], count: int, corrected: str | None) -> float:
    lists: list[list[tuple[float, bool]]] = [[] for _ in range(count)]
    objects = np.zeros(count, dtype=int)
    for sample, one in zip(samples, judged):
        asked = sample.true_labels[~sample.crowd].tolist()
        if corrected == 'missed':
            asked = [sample.true_labels[g] for g in np.flatnonzero(~sample.crowd) if g not in set(one.missed)]
        np.add.at(objects, np.array(asked, dtype=int), 1)
        found = {verdict.target for verdict in one.verdicts if verdict.kind == RIGHT}
        for index, verdict in enumerate(one.verdicts):  # best first
            label, right = sample.labels[index], verdict.kind == RIGHT
            if verdict.kind == IGNORED:
                continue
            if verdict.kind == corrected:
                if corrected not in ('class', 'location') or verdict.target in found:
                    continue
                label, right = sample.true_labels[verdict.target], True
                found.add(verdict.target)
            lists[label].append((sample.scores[index], right))
    values = [
        interpolated_ap(np.array([score for score, _ in one]), np.array([right for _, right in one], bool), number)
        if one
        else 0.0
        for one, number in zip(lists, objects.tolist())
        if number
    ]
    return float(np.mean(values)) if values else float('nan')


def confusion(samples: Sequence[Sample], count: int, score_threshold: float) -> np.ndarray:
    """(classes + 1, classes + 1): objects by true (row) and predicted class (column); the last is 'nothing'.

    Predictions above the threshold are assigned to the object that they overlap most, by at least 0.5: first objects of
    their class, then the remaining ones, by descending score.
    """
    table = np.zeros((count + 1, count + 1), dtype=int)
    for sample in samples:
        sample = above(sample, score_threshold)
        iou = overlaps(sample.boxes, sample.true_boxes) * ~sample.crowd
        same = sample.labels[:, None] == sample.true_labels[None]
        partner = np.full(len(sample.boxes), -1)
        for allowed in (same, ~same):
            for index in np.flatnonzero(partner < 0):
                free = iou[index] * allowed[index] * ~np.isin(np.arange(iou.shape[1]), partner)
                if len(free) and free.max() >= FOREGROUND:
                    partner[index] = free.argmax()
        in_crowd = (covered(sample.boxes, sample.true_boxes) * sample.crowd >= FOREGROUND).any(axis=1)
        for index, target in enumerate(partner):
            if target >= 0:
                table[sample.true_labels[target], sample.labels[index]] += 1
            elif not in_crowd[index]:
                table[count, sample.labels[index]] += 1
        lost = set(np.flatnonzero(~sample.crowd).tolist()) - set(partner.tolist())
        np.add.at(table[:, count], sample.true_labels[sorted(lost)], 1)
    return table
