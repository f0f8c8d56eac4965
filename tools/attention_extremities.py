"""Do heads attend to the extremities of boxes? ``python tools/attention_extremities.py CONFIG CHECKPOINT``."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main(['attention-extremities', *sys.argv[1:]]))
