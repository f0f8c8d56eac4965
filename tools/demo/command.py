"""Run the demo: ``python tools/demo.py --work-dir work_dirs/demo`` (what ``make demo`` does)."""

import argparse
from pathlib import Path

import mmcondetr  # noqa: F401  (before anything of mmdet)
from mmcondetr.cli.common import run_guarded


def main() -> int:
    parser = argparse.ArgumentParser(description='Train, evaluate and draw a small Conditional DETR')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='where everything goes')
    args = parser.parse_args()
    from tools.demo.demo import run_demo

    return run_guarded(lambda: run_demo(args.work_dir), 'the same command')
