"""The error analysis as JSON, as text, and as an HTML page with the worst images."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcondetr.analysis.average_precision import ap_by_class
from mmcondetr.analysis.error_kinds import KINDS, RIGHT, above, confusion, judge, measure_kinds
from mmcondetr.analysis.html_page import pictures, table, text, write_page
from mmcondetr.analysis.samples import Sample
from mmcondetr.datasets.read_image import read_image
from mmcondetr.inference.drawing import draw_boxes
from mmcondetr.writing import replacing

GREEN, RED, ORANGE = (40, 170, 80), (230, 40, 70), (250, 160, 20)


def analyse(samples: Sequence[Sample], names: Sequence[str], score_threshold: float) -> dict[str, Any]:
    """All figures in JSON format: APs from 0 to 1, counts above the score threshold."""
    judged = [judge(sample) for sample in samples]
    ap50, costs = measure_kinds(samples, judged, len(names), score_threshold)
    by_class = ap_by_class(samples, len(names))
    objects = sum((np.bincount(s.true_labels[~s.crowd], minlength=len(names)) for s in samples), np.zeros(len(names)))
    aps = [ap for ap, _ in by_class if not math.isnan(ap)]
    return dict(
        images=len(samples),
        score_threshold=score_threshold,
        ap=float(np.mean(aps)) if aps else None,
        ap50=None if math.isnan(ap50) else ap50,
        classes=[
            dict(name=name, objects=int(count), ap=None if math.isnan(a) else a, ap50=None if math.isnan(b) else b)
            for name, count, (a, b) in zip(names, objects, by_class)
        ],
        errors={kind: dict(count=c.count, any_score=c.any_score, ap50_lost=c.ap50) for kind, c in costs.items()},
        confusion=dict(
            true_by_predicted=confusion(samples, len(names), score_threshold).tolist(), order=[*names, 'nothing']
        ),
    )


def to_lines(figures: dict[str, Any]) -> list[str]:
    """The analysis as lines of text."""
    lines = [f'{figures["images"]} images: AP {percent(figures["ap"])}, AP50 {percent(figures["ap50"])}']
    width = max(len(entry['name']) for entry in figures['classes'])
    for entry in figures['classes']:
        lines.append(
            f'  {entry["name"]:{width}}  AP {percent(entry["ap"]):>5}  AP50 {percent(entry["ap50"]):>5}  '
            f'{entry["objects"]} objects'
        )
    lines.append('errors of each kind, and the AP50 lost to those of any score, all of which AP ranks:')
    lines.append(f'  {"":10}  {_at_least(figures):>12}  any score  AP50 lost')
    for kind, cost in figures['errors'].items():
        counts = f'{cost["count"]:12d}  {cost["any_score"]:9d}'
        lines.append(f'  {kind:10}  {counts}  {percent(cost["ap50_lost"]):>9}  ({KINDS[kind]})')
    return lines


def _at_least(figures: dict[str, Any]) -> str:
    return f'score >= {figures["score_threshold"]:g}'


def percent(value: float | None) -> str:
    """A fraction in %; a dash for None."""
    return '-' if value is None else f'{100 * value:.1f}'


def rank_worst(samples: Sequence[Sample], score_threshold: float, count: int) -> list[tuple[int, int]]:
    """(index, number of errors) of the images with the most errors above the threshold, without error-free ones."""
    errors = []
    for sample in samples:
        kept = above(sample, score_threshold)
        judged = judge(kept)
        wrong = sum(verdict.kind in KINDS for verdict in judged.verdicts)
        errors.append(wrong + len(judged.missed))
    order = sorted(range(len(samples)), key=lambda index: -errors[index])
    return [(index, errors[index]) for index in order[:count] if errors[index]]


def draw_sample(sample: Sample, names: Sequence[str], score_threshold: float) -> Image.Image:
    """The image with correct (green), wrong (red, with the kind) and missed (orange) objects."""
    kept = above(sample, score_threshold)
    judged = judge(kept)
    boxes, colours, captions = [], [], []
    for g in judged.missed:
        boxes.append(kept.true_boxes[g])
        colours.append(ORANGE)
        captions.append(f'missed {names[kept.true_labels[g]]}')
    for index, verdict in reversed(list(enumerate(judged.verdicts))):
        boxes.append(kept.boxes[index])
        colours.append(GREEN if verdict.kind == RIGHT else RED if verdict.kind in KINDS else (128, 128, 128))
        prefix = '' if verdict.kind == RIGHT else f'{verdict.kind}: '
        captions.append(f'{prefix}{names[kept.labels[index]]} {kept.scores[index]:.2f}')
    return draw_boxes(read_image(sample.path), np.array(boxes).reshape(-1, 4), colours, captions)


def write_analysis(
    samples: Sequence[Sample],
    names: Sequence[str],
    out: str | os.PathLike,
    score_threshold: float = 0.3,
    worst: int = 12,
    title: str = 'Analysis',
) -> dict[str, Any]:
    """Write OUT/analysis.json and OUT/analysis.html; returns the figures.

    Args:
        samples: the images.
        names: of the classes, by label.
        out: the folder to write.
        score_threshold: minimum score of a detection; AP uses all scores.
        worst: number of images to show.
        title: of the page.

    Raises:
        UserError: an image to show cannot be read.
    """
    figures, out = analyse(samples, names, score_threshold), Path(out)
    shown = [
        (
            draw_sample(samples[index], names, score_threshold),
            f'{os.path.basename(samples[index].path)}: {errors} error{"s" * (errors > 1)}',
        )
        for index, errors in rank_worst(samples, score_threshold, worst)
    ]
    matrix = np.array(figures['confusion']['true_by_predicted'])
    shades = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    order = figures['confusion']['order']
    ap_rows = [
        (entry['name'], entry['objects'], percent(entry['ap']), percent(entry['ap50'])) for entry in figures['classes']
    ]
    all_classes = ('all', sum(row[1] for row in ap_rows), percent(figures['ap']), percent(figures['ap50']))
    threshold = f'with a score of at least {score_threshold:g}'
    sections = [
        ('AP by class', table(('class', 'objects', 'AP (%)', 'AP50 (%)'), [*ap_rows, all_classes])),
        (
            'Kinds of errors',
            text(
                f'Number of errors {threshold} and of any score, and the gain in AP50, which ranks predictions of any '
                'score, if all errors of the kind were fixed (TIDE).'
            )
            + table(
                ('kind', _at_least(figures), 'any score', 'AP50 lost', 'meaning'),
                [
                    (kind, cost['count'], cost['any_score'], percent(cost['ap50_lost']), KINDS[kind])
                    for kind, cost in figures['errors'].items()
                ],
            ),
        ),
        (
            'Confusion',
            text(f'Rows are true classes, columns predicted classes, of predictions {threshold}.')
            + table(('', *order), [(order[i], *row) for i, row in enumerate(matrix.tolist())], shades.tolist()),
        ),
        (
            'Worst images',
            text('Green: correct. Red: wrong. Orange: missed.') + pictures(shown)
            if shown
            else text('No image has errors.'),
        ),
    ]
    write_page(out / 'analysis.html', title, sections)
    with replacing(out / 'analysis.json') as temporary:
        temporary.write_text(json.dumps(figures, indent=1), encoding='utf-8')
    return figures
