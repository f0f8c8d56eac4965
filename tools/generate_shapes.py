"""Draw the shapes data set: ``python tools/generate_shapes.py [ROOT]``."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main(['generate-shapes', *sys.argv[1:]]))
