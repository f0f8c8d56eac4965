"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``, with the options of mmdet's tools/test.py."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main(['test', *sys.argv[1:]]))
