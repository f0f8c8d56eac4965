"""Plot AP by epoch of several runs, like the paper's Figure 2: ``python tools/plot_convergence.py LOG...``.

A LOG is a work directory of training, or a vis_data/scalars.json of mmengine in one.
"""

import argparse

from mmcondetr.errors import UserError
from mmcondetr.visualization.curves import METRIC, plot_convergence, read_curve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('logs', nargs='+', metavar='LOG', help='a work directory, or a scalars.json in one')
    parser.add_argument('--names', nargs='+', help="the runs' names in the legend (default: their work directories')")
    parser.add_argument('--metric', default=METRIC, help=f'key of the metric in the logs (default: {METRIC})')
    parser.add_argument('--out', default='convergence.png', help='the picture to write (default: convergence.png)')


def run(args: argparse.Namespace) -> None:
    names = args.names or [None] * len(args.logs)
    if len(names) != len(args.logs):
        raise UserError(f'--names: {len(names)} names for {len(args.logs)} logs; give one for each.')
    curves = [read_curve(log, args.metric, name) for log, name in zip(args.logs, names)]
    plot_convergence(curves, args.out, args.metric)
    for curve in curves:
        best = max(range(len(curve.values)), key=curve.values.__getitem__)
        print(
            f'{curve.name}: last {100 * curve.values[-1]:.1f} at {curve.unit} {curve.steps[-1]}, best '
            f'{100 * curve.values[best]:.1f} at {curve.unit} {curve.steps[best]}'
        )
    print(f'wrote {args.out}')
