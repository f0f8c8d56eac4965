"""Convert a checkpoint between families: ``python tools/convert_checkpoint.py SOURCE TARGET --to FAMILY``."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main(['convert-checkpoint', *sys.argv[1:]]))
