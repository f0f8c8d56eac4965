"""Plot AP by epoch of several runs, like the paper's Figure 2: ``python tools/plot_convergence.py LOG...``.

A LOG is a work directory of training, or a vis_data/scalars.json of mmengine in one.
"""

import argparse
import sys

import mmcondetr  # noqa: F401  (before anything of mmdet)
from mmcondetr.engine.cli import run
from mmcondetr.engine.errors import UserError
from mmcondetr.visualization.convergence import METRIC, plot_convergence, read_curve


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('logs', nargs='+', metavar='LOG', help='a work directory, or a scalars.json in one')
    parser.add_argument('--names', nargs='+', help="the runs' names in the legend (default: their work directories')")
    parser.add_argument('--metric', default=METRIC, help=f'key of the metric in the logs (default: {METRIC})')
    parser.add_argument('--out', default='convergence.png', help='the picture to write (default: convergence.png)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    names = args.names or [None] * len(args.logs)
    if len(names) != len(args.logs):
        raise UserError(f'--names: {len(names)} names for {len(args.logs)} logs; give one for each.')
    curves = [read_curve(log, args.metric, name) for log, name in zip(args.logs, names)]
    plot_convergence(curves, args.out, args.metric)
    for curve in curves:
        best = max(range(len(curve.values)), key=curve.values.__getitem__)
        print(f'{curve.name}: last {100 * curve.values[-1]:.1f} at {curve.unit} {curve.steps[-1]}, best '
              f'{100 * curve.values[best]:.1f} at {curve.unit} {curve.steps[best]}')
    print(f'wrote {args.out}')


if __name__ == '__main__':
    sys.exit(run(main))
