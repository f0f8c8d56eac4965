"""Draw where a detector looks: ``python tools/visualize_attention.py IMAGE CONFIG CHECKPOINT``."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main(['visualize-attention', *sys.argv[1:]]))
