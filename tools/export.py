"""Export a detector: ``python tools/export.py CONFIG CHECKPOINT --out model.onnx``, like ``mmcondetr export``."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main(['export', *sys.argv[1:]]))
