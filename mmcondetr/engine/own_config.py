"""Writes a short config for one's own data, based on the annotations."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcondetr.datasets.own_data import OwnData
from mmcondetr.datasets.own_json import count_boxes
from mmcondetr.errors import UserError

FLIPS = ('auto', 'horizontal', 'both', 'none')
SIDED = re.compile(r'\b(left|right|digit|letter|arrow|turn)\b|^[a-zA-Z0-9]$', re.IGNORECASE)
LEAST_SIDE = 16.0  # pixels of the median object's shorter side in the resized image: one token of the small model
LEAST_IMAGE = 64  # pixels of an image's longer side: four tokens of the small model


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        base: the config to inherit from.
        what: a one-line description.
        batch_size: images per step on one device.
        iterations: default length of training.
        longest: longer side of the resized images in pixels: (initial value if the images are that large, maximum).
        detections: maximum number per image.
    """

    base: str
    what: str
    batch_size: int
    iterations: int
    longest: tuple[int, int]
    detections: int


STARTS = {
    'small': Start(
        'own_small.py', 'a small model for a CPU, from weights trained on shapes only', 4, 3000, (320, 640), 30
    ),
    'r50': Start('own_r50.py', "the paper's R50, from its authors' COCO weights", 4, 5000, (1333, 1333), 100),
}


@dataclass(frozen=True)
class Choices:
    """The settings of a config, and the reasons for them."""

    classes: tuple[str, ...]
    scale: tuple[int, int]
    epochs: int
    steps: int
    flips: str
    batch_size: int
    reasons: tuple[str, ...]


def choose(
    data: OwnData, start: Start, iterations: int | None = None, batch_size: int | None = None, flips: str = 'auto'
) -> Choices:
    """Choose classes, image size, epochs and flips from the training annotations.

    Raises:
        UserError: there are no boxes, or a number is out of range.
    """
    content = data.contents['train']
    counts = count_boxes(content)
    classes = tuple(name for name in counts if counts[name])
    if not classes:
        raise UserError(f"Annotation file '{data.files['train']}' holds no box of a category that it lists.")
    batch_size, iterations = batch_size or start.batch_size, iterations or start.iterations
    if batch_size < 1 or iterations < 1:
        raise UserError(f'Batch size and iterations must be at least 1, got {batch_size} and {iterations}.')
    empty = [name for name in counts if not counts[name]]
    reasons = [f'{len(classes)} classes: ' + ', '.join(f'{name} ({counts[name]} boxes)' for name in classes)]
    if empty:
        reasons.append(f'left out, for no box has them: {", ".join(empty)}')
    scale, why = _choose_scale(content, start)
    batch_size = min(batch_size, len(content['images']))
    steps = max(1, -(-len(content['images']) // batch_size))
    epochs = max(1, round(iterations / steps))
    length = f'{epochs} epoch{"s" * (epochs > 1)} of {steps} iteration{"s" * (steps > 1)}'
    reasons += [why, f'{length} with {batch_size} images: {epochs * steps} iterations']
    most = max(Counter(entry['image_id'] for entry in content['annotations']).values())
    if most > start.detections:
        reasons.append(
            f'careful: an image has {most} objects, and this model finds {start.detections} at most '
            "(docs/questions.md, 'Another number of queries')"
        )
    sided = [name for name in classes if SIDED.search(name)]
    if flips == 'auto':
        flips = 'none' if sided else 'horizontal'
        reasons.append(
            f'no flips: {", ".join(sided[:3])} would mean something else mirrored'
            if sided
            else 'horizontal flips; --flips both if there is no up and down (from above, through a microscope)'
        )
    return Choices(classes, scale, epochs, steps, flips, batch_size, tuple(reasons))


def _choose_scale(content: dict[str, Any], start: Start) -> tuple[tuple[int, int], str]:
    """The frame (longer, shorter side in pixels) that images are resized into."""
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    median = np.median([sorted(size, reverse=True) for size in sizes.values()], axis=0)
    first, most = start.longest
    if first == most:
        return (1333, 800), 'images of up to 1333 x 800 pixels, as on COCO'
    shares = [
        min(float(entry['bbox'][2]), float(entry['bbox'][3])) / max(sizes[entry['image_id']])
        for entry in content['annotations']
    ]
    share = float(np.median([share for share in shares if share > 0] or [1.0]))
    # Enlarging images costs time and adds no detail: only objects that are too small justify it.
    first = min(first, max(LEAST_IMAGE, int(median[0])))
    longer = int(min(max(first, 32 * np.ceil(LEAST_SIDE / share / 32)), most))
    shorter = int(max(32, np.ceil(longer * median[1] / median[0] / 16) * 16))
    what = f'images resized into {longer} x {shorter} pixels (they have {median[0]:.0f} x {median[1]:.0f}); '
    return (longer, shorter), what + f"the median object's shorter side is then {share * longer:.0f} pixels"


def compose(data: OwnData, start: Start, choices: Choices, seed: int) -> str:
    """The config's text, at most 40 lines."""
    turned = "direction=['horizontal', 'vertical', 'diagonal']"
    flip = {
        'horizontal': "    dict(type='mmdet.RandomFlip', prob=0.5),\n",
        'both': f"    dict(type='mmdet.RandomFlip', prob=[0.25] * 3, {turned}),\n",
        'none': '',
    }[choices.flips]
    total = choices.epochs * choices.steps
    drop = max(1, round(choices.epochs * 5 / 6))
    warm_up = max(1, min(100, total // 4))
    test = data.files.get('test', data.files['val'])
    root = os.path.commonpath(data.image_roots.values())
    test_lines = (
        ('test_dataloader, test_evaluator = val_dataloader, val_evaluator\n',)
        if test == data.files['val']
        else (
            f'test_dataloader = dict(dataset={_dataset(data, "test", root)})\n',
            f'test_evaluator = dict(ann_file={str(test)!r})\n',
        )
    )
    return ''.join(
        (
            f'# Written by mmcondetr init: {start.what}. Every line may be changed.\n',
            f"_base_ = 'mmcondetr::_base_/{start.base}'\n",
            "custom_imports = dict(imports=['mmcondetr'])\n",
            _classes_line(choices.classes),
            f'model = dict(bbox_head=dict(num_classes={len(choices.classes)}))\n',
            f'data = dict(data_root={root + "/"!r}, metainfo=dict(classes=classes))\n',
            f'scale = {choices.scale}  # images are resized to fit into these pixels\n',
            'train_pipeline = [\n',
            "    dict(type='mmcondetr.LoadImage'),\n",
            "    dict(type='mmdet.LoadAnnotations', with_bbox=True),\n",
            "    dict(type='mmdet.Resize', scale=scale, keep_ratio=True),\n",
            flip,
            "    dict(type='mmdet.PackDetInputs'),\n",
            ']\n',
            'test_pipeline = [\n',
            "    dict(type='mmcondetr.LoadImage'),\n",
            "    dict(type='mmdet.Resize', scale=scale, keep_ratio=True),\n",
            "    dict(type='mmdet.LoadAnnotations', with_bbox=True),\n",
            "    dict(type='mmdet.PackDetInputs', "
            "meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),\n",
            ']\n',
            'train_dataloader = dict(\n',
            f'    batch_size={choices.batch_size},\n',
            f'    dataset={_dataset(data, "train", root)},\n',
            ')\n',
            f'val_dataloader = dict(dataset={_dataset(data, "val", root)})\n',
            f'val_evaluator = dict(ann_file={str(data.files["val"])!r})\n',
            *test_lines,
            f'max_epochs = {choices.epochs}  # of {choices.steps} iterations: {total} in all\n',
            f'train_cfg = dict(max_epochs=max_epochs, val_interval={max(1, choices.epochs // 10)})\n',
            'param_scheduler = [\n',
            f"    dict(type='LinearLR', start_factor=0.1, begin=0, end={warm_up}, by_epoch=False),\n",
            f"    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[{drop}], gamma=0.1),\n",
            ']\n',
            f'randomness = dict(seed={seed})\n',
        )
    )


def _dataset(data: OwnData, part: str, root: str) -> str:
    """The data set of a part, whose images may be in a separate folder."""
    below = os.path.relpath(data.image_roots[part], root)
    prefix = '' if below == '.' else f'data_prefix=dict(img={below + "/"!r}), '
    pipeline = f'pipeline={"train" if part == "train" else "test"}_pipeline'
    return f'dict(data, ann_file={str(data.files[part])!r}, {prefix}{pipeline})'


def _classes_line(classes: Sequence[str]) -> str:
    """One line, however many classes there are."""
    return f'classes = {tuple(classes)!r}\n'


def write_config(path: Path, text: str, force: bool = False) -> None:
    """Write a config, unless the file exists.

    Raises:
        UserError: the file exists, or the folder is not writable.
    """
    if path.exists() and not force:
        raise UserError(f"'{path}' exists: pass another name as --out, or --force to replace it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}.") from error
