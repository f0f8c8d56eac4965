"""Train a detector: ``python tools/train.py CONFIG``, with the flags of mmdet's own tools/train.py."""

import argparse
import sys

import mmcondetr  # noqa: F401  (before anything of mmdet: it registers our modules and makes mmcv-lite enough)
from mmcondetr.engine.cli import add_common_arguments, build_runner, parse, run
from mmcondetr.engine.config import apply_training_options, load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector')
    add_common_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--amp-dtype', choices=['bf16', 'fp16'], help='with --amp (default: fp16, and bf16 on a CPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch over all GPUs, relative to auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or without a value from the last one in the work directory',
    )
    return parse(parser)


def main() -> None:
    args = parse_args()
    config = load_config(args)
    apply_training_options(config, args)
    build_runner(config).train()


if __name__ == '__main__':
    sys.exit(run(main))
