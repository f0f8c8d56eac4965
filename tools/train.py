"""Train a detector: ``python tools/train.py CONFIG``, with the options of mmdet's tools/train.py."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
