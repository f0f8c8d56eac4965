"""Inspect a data set (COCO JSON, YOLO folder or Pascal VOC folder) and write a config for it.

    mmcondetr init photos/annotations.json --out my_config.py          # COCO
    mmcondetr init photos/train.json --val photos/val.json --out my_config.py
    mmcondetr init my_yolo_folder --out my_config.py                    # images/, labels/, data.yaml
    mmcondetr init VOCdevkit/VOC2007 --out my_config.py                 # Annotations/, JPEGImages/

YOLO and VOC are converted to COCO JSONs beside the data, which is not changed. A set with only one part is split into
training and validation by --seed. Nothing is written if mmcondetr train would refuse the data, nor over another file.
The config has at most 40 lines, to be read and changed; next: mmcondetr check.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmcondetr.datasets.own_data import find_own_data
from mmcondetr.engine.own_config import FLIPS, STARTS, choose, compose, write_config
from mmcondetr.errors import UserError
from mmcondetr.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('data', help='a COCO JSON, or a folder of COCO JSONs, YOLO or Pascal VOC')
    parser.add_argument('--out', default='my_config.py', help='the config to write (default: my_config.py)')
    parser.add_argument('--val', help='COCO JSON for validation, if DATA is one for training')
    parser.add_argument('--images', help="folder of a COCO JSON's images (default: searched near it)")
    parser.add_argument('--val-images', help='the same for validation (default: searched near its JSON)')
    parser.add_argument(
        '--val-share', type=float, default=0.2, help='fraction for validation, if the set is split (default: 0.2)'
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed of the split and of training (default: 0)')
    parser.add_argument(
        '--start',
        choices=['auto', *STARTS],
        default='auto',
        help="r50: the paper's model from COCO weights; small: a small one that trains on a CPU, from the shapes' "
        'weights that ship with the package (default: r50 if there is a GPU)',
    )
    parser.add_argument('--iterations', type=int, help='length of training, for any number of images')
    parser.add_argument('--batch-size', type=int, help='images per step')
    parser.add_argument('--flips', choices=FLIPS, default='auto', help='augmentation (default: by the class names)')
    parser.add_argument(
        '--force', action='store_true', help='replace the config, and COCO JSONs that an earlier call wrote'
    )


def run(args: argparse.Namespace) -> None:
    import torch

    out = Path(args.out)
    if out.suffix != '.py':
        raise UserError(f"--out '{out}': a config is a Python file, so its name must end in .py.")
    if out.exists() and not args.force:
        raise UserError(f"'{out}' exists: pass another name as --out, or --force to replace it.")
    name = args.start if args.start != 'auto' else 'r50' if torch.cuda.is_available() else 'small'
    data = find_own_data(args.data, args.val, args.images, args.val_share, args.seed, args.val_images, args.force)
    choices = choose(data, STARTS[name], args.iterations, args.batch_size, args.flips)
    text = compose(data, STARTS[name], choices, args.seed)
    write_config(out, text, args.force)
    for root in dict.fromkeys(data.image_roots.values()):
        parts = ', '.join(part for part, one in data.image_roots.items() if one == root)
        say(f'{data.kind} data, images in {root} ({parts})')
    start = f'start: {STARTS[name].what}' + (' (there is no GPU)' if args.start == 'auto' and name == 'small' else '')
    for line in (*data.notes, *choices.reasons, start):
        say(f'- {line}')
    say(f'wrote {out} ({len(text.splitlines())} lines). Next: mmcondetr check {out}, then mmcondetr train {out}')
