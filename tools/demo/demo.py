"""The demo: evaluate a small trained Conditional DETR on generated shapes, train it on, evaluate again, draw pictures.

Every step leaves a file and is skipped where that file is newer than what it is made from, so a second run does only
what is missing; an interrupted training goes on from its last epoch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.apis import inference_detector
from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console
from torch import nn

from mmcondetr.checkpoints.files import replacing
from mmcondetr.datasets.shapes import SHAPES_CLASSES, SHAPES_PALETTE, generate_shapes
from mmcondetr.engine.config import find_config
from mmcondetr.inference import load_detector
from mmcondetr.visualization import draw_attention, read_image, write_explorer
from mmcondetr.visualization.attend import to_rgb

CONFIG = 'conditional-detr_r18_small_1xb16-3e_shapes-finetune'
METRICS = {'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50', 'AP75': 'coco/bbox_mAP_75'}
SCORE_THRESHOLD = 0.4  # of the boxes that are drawn


def run_demo(work_dir: Path, num_train: int = 2000, num_val: int = 200) -> dict[str, dict[str, float]]:
    """Run what is missing of the demo.

    Args:
        work_dir: where everything goes: the data set, the checkpoints, the metrics and the pictures.
        num_train: training images to draw.
        num_val: held-out images to draw.

    Returns:
        AP, AP50 and AP75 on the held-out images, of the start and of the trained model.
    """
    console = Console()
    work_dir = work_dir.resolve()
    data = work_dir / 'shapes'
    console.rule('1 of 4: the data set')
    drawn = generate_shapes(data, num_train=num_train, num_val=num_val)
    known = '' if drawn else ' (there already)'
    console.print(f'{num_train} training and {num_val} held-out images in {data}{known}')
    config = demo_config(work_dir)
    start, last = Path(config.load_from), work_dir / f'epoch_{config.train_cfg.max_epochs}.pth'

    metrics = {}
    console.rule('2 of 4: evaluate the trained start')
    marker = data / 'annotations' / 'val.json'
    metrics['start'] = _evaluated(demo_config(work_dir), start, work_dir / 'metrics_start.json', [start, marker])
    console.rule('3 of 4: train it on, and evaluate')
    _make(last, [start, marker], lambda: _train(config, [start, marker]))
    metrics['trained'] = _evaluated(demo_config(work_dir), last, work_dir / 'metrics_trained.json', [last, marker])
    console.rule('4 of 4: pictures')
    pictures = draw_pictures(work_dir, last)

    for name, values in metrics.items():
        console.print(
            f'{name:8s}'
            + '  '.join(f'{key} {value:.3f}' for key, value in values.items())
            + f'  on {num_val} held-out images'
        )
    console.print('Pictures:', *map(str, pictures), sep='\n  ')
    return metrics


def demo_config(work_dir: Path) -> Config:
    """The demo's config, with its data set and its outputs in ``work_dir``."""
    before = os.environ.get('SHAPES_ROOT')
    os.environ['SHAPES_ROOT'] = f'{work_dir / "shapes"}/'
    try:
        config = Config.fromfile(find_config(CONFIG))
    finally:
        os.environ.pop('SHAPES_ROOT')
        if before is not None:
            os.environ['SHAPES_ROOT'] = before
    config.work_dir = str(work_dir)
    config.randomness = dict(seed=0)
    return config


def draw_pictures(work_dir: Path, checkpoint: Path) -> list[Path]:
    """Draw detections, training curve, attention and the explorer page, each unless it is there and new enough."""
    images = sorted((work_dir / 'shapes' / 'val').glob('*.png'))
    model: list[nn.Module] = []  # loaded by the first picture that needs it

    def detector() -> nn.Module:
        if not model:
            model.append(load_detector(find_config(CONFIG), str(checkpoint)))
        return model[0]

    makers: dict[str, Callable[[Path], object]] = {
        'detections.png': lambda path: draw_detections(detector(), images[:12], work_dir / 'shapes', path),
        'training_curve.png': lambda path: draw_training_curve(work_dir, path),
        'attention.png': lambda path: draw_attention(detector(), str(images[0]), path),
        'explorer.html': lambda path: write_explorer(detector(), str(images[0]), path),
    }
    paths = []
    for name, maker in makers.items():
        path = work_dir / name
        _make(path, [checkpoint], lambda maker=maker, path=path: maker(path))
        paths.append(path)
    return paths


def draw_detections(model: nn.Module, images: Sequence[Path], root: Path, out_png: Path) -> None:
    """Draw what the model finds in some held-out images: boxes and scores, and dashed the ground truth."""
    truth = json.loads((root / 'annotations' / 'val.json').read_text())
    numbers = {image['file_name']: image['id'] for image in truth['images']}
    figure = Figure(figsize=(13, 2.35 * ((len(images) + 5) // 6)), layout='constrained')
    for place, path in enumerate(images, start=1):
        found = inference_detector(model, str(path)).pred_instances
        axes = figure.add_subplot((len(images) + 5) // 6, 6, place)
        axes.imshow(to_rgb(read_image(str(path))))
        axes.set_axis_off()
        for annotation in truth['annotations']:
            if annotation['image_id'] == numbers[path.name]:
                x, y, width, height = annotation['bbox']
                axes.add_patch(Rectangle((x, y), width, height, fill=False, color='white', linestyle=':', linewidth=1))
        kept = found[found.scores > SCORE_THRESHOLD]
        for (left, top, right, bottom), score, label in zip(
            kept.bboxes.tolist(), kept.scores.tolist(), kept.labels.tolist()
        ):
            colour = np.array(SHAPES_PALETTE[label]) / 255
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=colour, linewidth=1.6))
            axes.text(
                left,
                top,
                f'{SHAPES_CLASSES[label]} {score:.2f}',
                fontsize=6,
                color='white',
                va='bottom',
                bbox=dict(facecolor=colour, edgecolor='none', pad=0.8),
            )
    figure.suptitle(f'Held-out images: detections above {SCORE_THRESHOLD}, ground truth dotted')
    figure.savefig(out_png, dpi=130)


def draw_training_curve(work_dir: Path, out_png: Path) -> None:
    """Draw loss by iteration and AP by epoch of all runs in ``work_dir``; the start's AP, if known, at epoch 0."""
    records = [
        json.loads(line)
        for log in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in log.read_text().splitlines()
    ]
    losses = {record['step']: record['loss'] for record in records if 'loss' in record}
    evaluated = {record['step']: record for record in records if METRICS['AP'] in record and record['step'] > 0}
    known = work_dir / 'metrics_start.json'
    start = json.loads(known.read_text()) if known.is_file() else None
    figure = Figure(figsize=(9, 3.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    left.plot(list(losses), list(losses.values()), color='#0072B2')
    left.set(xlabel='iteration', ylabel='loss (sum over decoder layers)', title='Training loss')
    for name, colour, style in (('AP', '#0072B2', 'o-'), ('AP50', '#D55E00', 's--')):
        values = {} if start is None else {0: start[name]}
        values.update({epoch: record[METRICS[name]] for epoch, record in evaluated.items()})
        right.plot(list(values), list(values.values()), style, color=colour, label=name)
    right.set(xlabel='epoch' if start is None else 'epoch (0: the trained start)', title='COCO metrics', ylim=(0, 1))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(loc='lower right')
    figure.savefig(out_png, dpi=130)


def _make(path: Path, sources: Sequence[Path], maker: Callable[[], object]) -> None:
    """Run ``maker``, which writes ``path``, unless it is there and no source is newer."""
    if _is_newer(path, sources):
        print(f'{path} is there already')
        return
    maker()


def _is_newer(path: Path, sources: Sequence[Path]) -> bool:
    return path.is_file() and path.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def _train(config: Config, sources: Sequence[Path]) -> None:
    """Train from the start, or go on from the last checkpoint where that is newer than what it is made from."""
    if _is_newer(Path(config.work_dir) / 'last_checkpoint', sources):
        config.resume, config.load_from = True, None
    Runner.from_cfg(config).train()


def _evaluated(config: Config, checkpoint: Path, path: Path, sources: Sequence[Path]) -> dict[str, float]:
    """Metrics of a checkpoint on the held-out images, from ``path`` where it is new enough."""

    def evaluate() -> None:
        config.load_from = str(checkpoint)
        results = Runner.from_cfg(config).test()
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({name: results[key] for name, key in METRICS.items()}, indent=2))

    _make(path, sources, evaluate)
    return json.loads(path.read_text())
