"""Run the demo: ``python tools/demo.py --work-dir work_dirs/demo`` (what ``make demo`` does)."""

import argparse
import sys
from pathlib import Path

import mmcondetr  # noqa: F401  (before anything of mmdet)
from mmcondetr.engine.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description='Evaluate, train and draw a small Conditional DETR')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='where everything goes')
    args = parser.parse_args()
    from mmcondetr.demo import run_demo
    run_demo(args.work_dir)


if __name__ == '__main__':
    sys.exit(run(main))
