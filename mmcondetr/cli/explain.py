"""Write a page that shows where a detector looks in an image: every detection, layer and head, to click through.

    mmcondetr explain my_config.py work_dirs/my_config photo.jpg --out photo.html

The page contains all detections above a low score; a slider selects which are shown. It needs no server and no network.
For pictures, and to compare models, use mmcondetr visualize-attention.
"""

from __future__ import annotations

import argparse
import os

from mmcondetr.inference import load_detector
from mmcondetr.terminal import say
from mmcondetr.visualization import write_explorer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='path of a config, or the name of one in the package')
    parser.add_argument(
        'checkpoint', help="a checkpoint that fits it, in any format that mmcondetr test reads, or a run's folder"
    )
    parser.add_argument('image', help='an image file')
    parser.add_argument('--out', help='the page to write (default: explain_<image name>.html)')
    parser.add_argument('--query', type=int, help='show this object query (default: the best detections)')
    parser.add_argument('--count', type=int, default=40, help='maximum number of detections in the page (default: 40)')
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.3,
        help='of the detections shown initially (default: 0.3; a slider shows more)',
    )
    parser.add_argument('--device', default='cpu', help='such as cuda:0 (default: cpu)')


def run(args: argparse.Namespace) -> None:
    out = args.out or f'explain_{os.path.splitext(os.path.basename(args.image))[0]}.html'
    model = load_detector(args.config, args.checkpoint, args.device)
    found = write_explorer(
        model, args.image, out, count=args.count, score_threshold=args.score_threshold, query=args.query
    )
    for detection in [one for one in found if one.score >= args.score_threshold or args.query is not None]:
        box = ', '.join(f'{side:.0f}' for side in detection.box)
        say(f'query {detection.query}: {detection.name} {detection.score:.3f} at ({box})')
    say(f'wrote {out}: {len(found)} detections, as low as {found[-1].score:.2f}')
