"""Draw the shapes data set: pictures of six kinds of shapes, with COCO annotations.

mmcondetr generate-shapes data/shapes --num-train 200 --num-val 50
"""

import argparse

from mmcondetr.datasets.shapes import generate_shapes
from mmcondetr.terminal import say

USER_ERROR = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', nargs='?', default='data/shapes', help='folder to write (default: data/shapes)')
    parser.add_argument('--num-train', type=int, default=2000, help='training images (default: 2000)')
    parser.add_argument('--num-val', type=int, default=200, help='held-out images (default: 200)')
    parser.add_argument('--image-size', type=int, default=128, help='side in pixels (default: 128)')
    parser.add_argument('--seed', type=int, default=0, help='random seed (default: 0)')
    parser.add_argument('--panoptic', action='store_true', help='backgrounds of several kinds, and their annotations')


def run(args: argparse.Namespace) -> None:
    drawn = generate_shapes(args.root, args.num_train, args.num_val, args.image_size, args.seed, args.panoptic)
    say(f'{"wrote" if drawn else "kept"} {args.root}: {args.num_train} training and {args.num_val} held-out images')
