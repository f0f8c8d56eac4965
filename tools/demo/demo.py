"""The demo: train a small Conditional DETR on generated shapes from a pretrained backbone, with groups, and draw.

As in the paper, only the backbone is pretrained; transformer and head are trained from scratch. Detections and the
learning curve are drawn, the latter with DETR's from docs/convergence. Attention is that of the finished model that
ships with the package, because a few epochs do not give sharp maps. The data set and the trained model are made once;
an interrupted training resumes from its last epoch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import cv2
from matplotlib.figure import Figure
from mmengine.config import Config
from PIL import Image
from rich.console import Console

from mmcondetr.cli.common import build_runner
from mmcondetr.datasets.read_image import read_image
from mmcondetr.datasets.shapes import generate_shapes
from mmcondetr.engine.config import find_config
from mmcondetr.inference.predictor import Detector
from mmcondetr.visualization import draw_attention, write_explorer
from mmcondetr.visualization.colours import OKABE_ITO
from mmcondetr.visualization.curves import read_records
from mmcondetr.visualization.panels import save_figure
from mmcondetr.writing import replacing

CONFIG = 'conditional-detr_r18_small-6-groups_1xb4-3e_shapes'
FINISHED = Path(__file__).parents[2] / 'configs/shapes/conditional-detr_r18_small_shapes-start.safetensors'
COMMITTED = Path(__file__).parents[2] / 'docs/convergence/shapes/convergence.json'  # runs without groups
BEHIND = {'conditional-detr': ('Conditional DETR, no groups', 'green'), 'detr': ('DETR', 'black')}
METRICS = {'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50', 'AP75': 'coco/bbox_mAP_75'}
SCORE_THRESHOLD = 0.3  # minimum score of the boxes drawn: low, because after three epochs scores are low


def run_demo(work_dir: Path, num_train: int = 2000, num_val: int = 200) -> dict[str, dict[str, float]]:
    """Run the demo.

    Args:
        work_dir: folder of all outputs: the data set, the checkpoints, the metrics and the pictures.
        num_train: number of training images to draw.
        num_val: number of held-out images to draw.

    Returns:
        AP, AP50 and AP75 on the held-out images, of the model trained here and of the finished one.
    """
    console = Console()
    work_dir = work_dir.resolve()
    data = work_dir / 'shapes'
    console.rule('1 of 4: the data set')
    drawn = generate_shapes(data, num_train=num_train, num_val=num_val)
    known = '' if drawn else ' (there already)'
    console.print(f'{num_train} training and {num_val} held-out images in {data}{known}')
    config = demo_config(work_dir)
    last = work_dir / f'epoch_{config.train_cfg.max_epochs}.pth'

    metrics = {}
    console.rule('2 of 4: train from the pretrained backbone, and evaluate')
    if last.is_file():
        console.print(f'{last} already exists: delete {work_dir} to start over')
    else:
        _train(config)
    metrics['trained'] = _evaluate(demo_config(work_dir), last)
    console.rule('3 of 4: evaluate the finished model that ships with the package, trained for 9,000 steps')
    metrics['finished'] = _evaluate(demo_config(work_dir), FINISHED)
    console.rule('4 of 4: pictures')
    pictures = draw_pictures(work_dir, last)
    with replacing(work_dir / 'metrics.json') as temporary:
        temporary.write_text(json.dumps(metrics, indent=2))

    for name, values in metrics.items():
        console.print(
            f'{name:10s}'
            + '  '.join(f'{key} {value:.3f}' for key, value in values.items())
            + f'  on {num_val} held-out images'
        )
    console.print('Pictures (detections: the model trained here; attention: the finished model):')
    console.print(*map(str, pictures), sep='\n')
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
    """Draw the trained model's detections and curve, and the finished model's attention and explorer page."""
    images = sorted((work_dir / 'shapes' / 'val').glob('*.png'))
    paths = [work_dir / name for name in ('detections.png', 'training_curve.png', 'attention.png', 'explorer.html')]
    draw_detections(Detector(CONFIG, checkpoint), images[:12], paths[0])
    draw_training_curve(work_dir, paths[1])
    finished = Detector(CONFIG, FINISHED).model
    draw_attention(finished, str(images[0]), paths[2])
    write_explorer(finished, str(images[0]), paths[3])
    return paths


def draw_detections(detector: Detector, images: Sequence[Path], out_png: Path, columns: int = 6) -> None:
    """Draw the detections in some held-out images, side by side, each enlarged three times."""
    pictures = []
    for path in images:
        pixels = cv2.resize(read_image(path), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
        found = detector.predict(path, SCORE_THRESHOLD)
        pictures.append(replace(found, xyxy=3 * found.xyxy, image=pixels).plot())
    width, height = pictures[0].size
    sheet = Image.new('RGB', (columns * width, -(-len(pictures) // columns) * height))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * width, place // columns * height))
    sheet.save(out_png)


def draw_training_curve(work_dir: Path, out_png: Path) -> None:
    """Draw the loss by iteration of all runs in ``work_dir``, and AP by epoch in front of the committed runs'."""
    records = read_records(work_dir)
    losses = dict(sorted((record['step'], record['loss']) for record in records if 'loss' in record))
    evaluated = {record['step']: record for record in records if METRICS['AP'] in record and record['step'] > 0}
    figure = Figure(figsize=(11, 3.8), layout='constrained')
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    left.plot(list(losses), list(losses.values()), color=OKABE_ITO['blue'])
    left.set(xlabel='iteration', ylabel='loss (sum over decoder layers)', title='Training loss')
    epochs = 2 * max(evaluated, default=1)
    for system, (name, colour) in BEHIND.items():
        runs = [run['ap'][:epochs] for run in json.loads(COMMITTED.read_text())['runs'] if run['system'] == system]
        steps, columns = range(1, len(runs[0]) + 1), list(zip(*runs))
        label = f'{name}: AP, {len(runs)} seeds, trained earlier'
        right.plot(steps, [fmean(column) for column in columns], color=OKABE_ITO[colour], label=label)
        right.fill_between(
            steps, *([limit(c) for c in columns] for limit in (min, max)), color=OKABE_ITO[colour], alpha=0.2
        )
    for name, colour, style in (('AP', 'blue', 'o-'), ('AP50', 'vermilion', 's--')):
        values = [record[METRICS[name]] for record in evaluated.values()]
        label = f'Conditional DETR, 6 groups: {name}, just now'
        right.plot(list(evaluated), values, style, color=OKABE_ITO[colour], label=label)
    right.set(xlabel='epoch (125 steps with all images)', title='COCO metrics on held-out images', ylim=(0, 1))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(loc='upper left', fontsize='small')
    save_figure(figure, out_png, dpi=130)


def _train(config: Config) -> None:
    """Train from the pretrained backbone, or resume an earlier run from its last checkpoint."""
    if (Path(config.work_dir) / 'last_checkpoint').is_file():
        config.resume, config.load_from = True, None
    build_runner(config, verbose=True).train()


def _evaluate(config: Config, checkpoint: Path) -> dict[str, float]:
    """Metrics of a checkpoint on the held-out images."""
    config.load_from = str(checkpoint)
    results = build_runner(config, verbose=True).test()
    return {name: results[key] for name, key in METRICS.items()}
