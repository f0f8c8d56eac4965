"""Train a detector: ``python tools/train.py CONFIG``, with the flags of mmdet's own tools/train.py."""

import argparse

from mmcondetr.cli.common import add_common_arguments, build_runner, use_local_rank
from mmcondetr.engine.config import apply_training_options, load_config

RESUME_HINT = 'the same command with --resume'


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


def run(args: argparse.Namespace) -> None:
    use_local_rank(args)
    config = load_config(args)
    apply_training_options(config, args)
    build_runner(config).train()
