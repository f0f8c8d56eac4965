"""Compare predictions with the ground truth: AP by class, confusions, errors by kind (TIDE), and the worst images.

    mmcondetr analyze my_config.py work_dirs/my_config --out analysis
    mmcondetr analyze --truth val.json --predictions predictions/predictions.json --images photos/

The first form predicts on the config's validation images; the second reads the output of mmcondetr predict, which
should include all scores (--score-threshold 0), or AP is too low. Writes OUT/analysis.html and OUT/analysis.json.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.progress import track

from mmcondetr.analysis.error_report import to_lines, write_analysis
from mmcondetr.analysis.samples import Sample, labels_by_name, make_sample, read_samples
from mmcondetr.errors import UserError
from mmcondetr.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', nargs='?', help='path of a config, or the name of one in the package')
    parser.add_argument('checkpoint', nargs='?', help="a checkpoint that fits it, or a run's folder")
    parser.add_argument(
        '--part', choices=('val', 'test', 'train'), default='val', help='which part of the data (default: val)'
    )
    parser.add_argument('--truth', help='instead of a config: a COCO JSON')
    parser.add_argument('--predictions', help='with --truth: a COCO JSON with scores, as mmcondetr predict writes it')
    parser.add_argument('--images', help="with --truth: the images' folder (default: searched near it)")
    parser.add_argument('--out', default='analysis', help='the folder to write (default: analysis)')
    parser.add_argument(
        '--score-threshold', type=float, default=0.3, help='minimum score of a detection (default: 0.3)'
    )
    parser.add_argument('--worst', type=int, default=12, help='images to show (default: 12)')
    parser.add_argument('--batch-size', type=int, default=1, help='maximum number of images per batch (default: 1)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')


def run(args: argparse.Namespace) -> None:
    if (args.config is None) == (args.truth is None):
        raise UserError('Pass CONFIG and CHECKPOINT, or --truth and --predictions.')
    if args.truth is not None:
        if args.predictions is None:
            raise UserError('--truth needs --predictions.')
        samples, names = read_samples(args.truth, args.predictions, args.images)
        title = f'{args.predictions} against {args.truth}'
    else:
        if args.checkpoint is None:
            raise UserError('A config needs a checkpoint after it.')
        samples, names = _predict(args)
        title = f'{os.path.basename(args.checkpoint)} on {len(samples)} images ({args.part})'
    figures = write_analysis(samples, names, args.out, args.score_threshold, args.worst, title)
    say('\n'.join(to_lines(figures)))
    say(f'wrote {Path(args.out) / "analysis.html"} and {Path(args.out) / "analysis.json"}')


def _predict(args: argparse.Namespace) -> tuple[list[Sample], tuple[str, ...]]:
    """Predictions of every score, not clipped, as in an evaluation."""
    from mmdet.registry import DATASETS

    from mmcondetr.datasets.coco_panoptic import CocoPanopticDataset
    from mmcondetr.inference.predictor import Detector

    detector = Detector(args.config, args.checkpoint, args.device)
    dataset = DATASETS.build(dict(detector.model.cfg[f'{args.part}_dataloader'].dataset, test_mode=True))
    if isinstance(dataset, CocoPanopticDataset):
        raise UserError(f'{args.part}_dataloader: analyze compares boxes; mmcondetr test reports panoptic quality.')
    names = tuple(dataset.metainfo['classes'])
    labels = labels_by_name(detector.class_names, names)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    found = detector.stream((info['img_path'] for info in infos), 0.0, args.batch_size, clip=False)
    samples = []
    for info, one in zip(infos, track(found, 'predicting', total=len(infos), transient=True)):
        truth = [(entry['bbox'], entry['bbox_label'], entry['ignore_flag']) for entry in info['instances']]
        classes = [labels.get(label) for label in one.class_id.tolist()]  # the checkpoint's order may differ
        found_here = zip(one.xyxy.tolist(), one.confidence.tolist(), classes)
        predicted = [entry for entry in found_here if entry[2] is not None]
        samples.append(make_sample(info['img_path'], truth, predicted))
    return samples, names
