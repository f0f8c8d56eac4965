"""Evaluate a checkpoint; takes the options of mmdet's tools/test.py, and is also available as tools/test.py.

    mmcondetr test my_config.py work_dirs/my_config                    # a run's folder: its best checkpoint
    mmcondetr test conditional-detr_r50_8xb2-50e_coco ConditionalDETR_r50_epoch50.pth --show-dir drawn

In a batch, images of different shapes are padded, which changes scores a little. With --batch-size N a batch holds
images of one shape only, and scores are those of batches of one.
"""

import argparse

from mmcondetr.cli.common import add_common_arguments, build_runner, use_local_rank
from mmcondetr.engine.config import load_config
from mmcondetr.engine.testing import RUNTIMES, apply_testing_options, dump_predictions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    parser.add_argument(
        'checkpoint',
        help="the checkpoint to evaluate, or a run's folder (its best one); with --runtime, the exported file",
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        metavar='N',
        help='at most N images at once, only those of one shape; a score does not depend on the others (default: the '
        "config's batches, padded)",
    )
    parser.add_argument('--out', help='write the predictions to this pickle file (.pkl)')
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument('--show-dir', help='draw predictions into this folder, under <work dir>/<time>/')
    parser.add_argument('--wait-time', type=float, default=2, help='how long --show displays each, in seconds')
    parser.add_argument('--tta', action='store_true', help='average over flipped images (needs the full mmcv)')
    parser.add_argument(
        '--optimize',
        choices=('fp32', 'bf16', 'fp16'),
        help='fold BatchNorm, optimise the layout of weights and compute in this precision',
    )
    parser.add_argument(
        '--runtime', choices=RUNTIMES, help='evaluate a file written by `mmcondetr export`, without PyTorch'
    )
    parser.add_argument('--runtime-precision', choices=('fp32', 'bf16'), default='fp32', help="OpenVINO's")
    parser.add_argument('--compile', action='store_true', help='with --optimize: use torch.compile')


def run(args: argparse.Namespace) -> None:
    use_local_rank(args)
    config = load_config(args)
    apply_testing_options(config, args)
    runner = build_runner(config, args.verbose)
    if args.out is not None:
        dump_predictions(runner, args.out)
    runner.test()
