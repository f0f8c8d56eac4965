"""Draw the shapes data set: python tools/generate_shapes.py [ROOT] [--num-train N] [--num-val N] ..."""

import argparse
import sys

from mmcondetr.datasets.shapes import generate_shapes
from mmcondetr.engine.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', nargs='?', default='data/shapes', help='folder to write (default: data/shapes)')
    parser.add_argument('--num-train', type=int, default=2000)
    parser.add_argument('--num-val', type=int, default=200)
    parser.add_argument('--image-size', type=int, default=128, help='side of the square images in pixels')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    try:
        drawn = generate_shapes(args.root, args.num_train, args.num_val, args.image_size, args.seed)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'{"wrote" if drawn else "kept"} {args.root}: {args.num_train} training and {args.num_val} held-out images')
    return 0


if __name__ == '__main__':
    sys.exit(main())
