"""``python -m mmcondetr COMMAND``: the same as ``mmcondetr COMMAND``."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main())
