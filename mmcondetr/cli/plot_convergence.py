"""Plot the logs of training: AP by epoch of several runs, like the paper's Figure 2, losses, or both in one picture.

    mmcondetr plot-convergence work_dirs/a work_dirs/b --out convergence.png
    mmcondetr plot-convergence work_dirs/a --metric loss coco/bbox_mAP

A LOG is a work directory, or a vis_data/scalars.json in one. Metrics are in %, and the highest value is the best;
losses are plotted as logged, by iteration, and the lowest is the best.
"""

import argparse

from mmcondetr.errors import UserError
from mmcondetr.terminal import say
from mmcondetr.visualization.curves import METRIC, describe, plot_curves, read_curve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('logs', nargs='+', metavar='LOG', help='a work directory, or a scalars.json in one')
    parser.add_argument('--names', nargs='+', help="the runs' names in the legend (default: their work directories')")
    parser.add_argument(
        '--metric',
        nargs='+',
        default=[METRIC],
        help=f'keys in the logs, one panel each, such as loss {METRIC} (default: {METRIC})',
    )
    parser.add_argument('--out', default='convergence.png', help='the picture to write (default: convergence.png)')


def run(args: argparse.Namespace) -> None:
    names = args.names or [None] * len(args.logs)
    if len(names) != len(args.logs):
        raise UserError(f'--names: {len(names)} names for {len(args.logs)} logs; pass one for each.')
    curves = {metric: [read_curve(log, metric, name) for log, name in zip(args.logs, names)] for metric in args.metric}
    plot_curves(curves, args.out)
    for metric, runs in curves.items():
        for curve in runs:
            say(describe(curve, metric) if len(curves) == 1 else f'{metric}, {describe(curve, metric)}')
    say(f'wrote {args.out}')
