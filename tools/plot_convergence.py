"""Plot AP by epoch of several runs: ``python tools/plot_convergence.py LOG...``."""

import sys

from mmcondetr.cli import main

if __name__ == '__main__':
    sys.exit(main(['plot-convergence', *sys.argv[1:]]))
