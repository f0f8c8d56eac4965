"""Convert a Conditional DETR checkpoint between mmcondetr, mmdet, the authors' code and Hugging Face transformers.

    mmcondetr convert-checkpoint ConditionalDETR_r50_epoch50.pth conditional-detr_r50.safetensors --to mmcondetr
    mmcondetr convert-checkpoint work_dirs/mine/epoch_50.pth my-conditional-detr --to huggingface --no-dc5

The source may be of any family (detrex too) and is never changed. Loading needs no conversion: all of our configs
read all of them directly.
"""

from __future__ import annotations

import argparse

from mmcondetr.checkpoints.conversion import TARGETS, convert
from mmcondetr.terminal import say

USER_ERROR = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', help='a checkpoint file, or a Hugging Face folder')
    parser.add_argument('target', help='the .pth or .safetensors file to write; a folder for huggingface')
    parser.add_argument('--to', required=True, choices=TARGETS, help='the format to write')
    parser.add_argument(
        '--dc5',
        action=argparse.BooleanOptionalAction,
        default=None,
        help='whether it is a DC5 model, if the source does not state it; weights do not reveal it',
    )
    parser.add_argument('--half', action='store_true', help='store float16: half the size, less precise')
    parser.add_argument('--force', action='store_true', help='replace the target')


def run(args: argparse.Namespace) -> None:
    say(convert(args.source, args.target, args.to, args.dc5, args.force, args.half))
