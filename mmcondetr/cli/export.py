"""Export a detector to ONNX or OpenVINO; ``mmcondetr.runtime.Detector`` runs the file without PyTorch.

mmcondetr export CONFIG CHECKPOINT --out model.onnx --verify IMAGES
mmcondetr export CONFIG CHECKPOINT --out model.xml --format openvino --int8 CALIBRATION_FOLDER --verify IMAGES
"""

import argparse
import os
from functools import partial

from mmcondetr.checkpoints.reading import find_file
from mmcondetr.cli.common import OptionsAction
from mmcondetr.engine.config import find_config, read_config
from mmcondetr.errors import UserError
from mmcondetr.export import FORMATS, export_detector
from mmcondetr.export.describing import describe
from mmcondetr.inference.load_detector import load_detector
from mmcondetr.runtime.images import list_images, read_image
from mmcondetr.terminal import say

MOST_CALIBRATION_IMAGES = 300


def _batch(text: str) -> int | None:
    if text == 'dynamic':
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be 'dynamic' or a number of images, not '{text}'") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='path of a config, or the name of one in the package')
    parser.add_argument('checkpoint', help="the checkpoint, of any family, or a run's folder, whose best one is taken")
    parser.add_argument('--out', required=True, help='the file to write, .onnx or .xml')
    parser.add_argument('--format', choices=FORMATS, help='default: from the suffix of --out')
    parser.add_argument(
        '--batch', type=_batch, default=None, metavar='dynamic|N', help='images per batch (default: dynamic)'
    )
    parser.add_argument(
        '--int8', metavar='FOLDER', help='quantise the backbone, calibrated with the images of this folder (OpenVINO)'
    )
    parser.add_argument(
        '--verify',
        metavar='IMAGES',
        help='compare with PyTorch on these images (a file or folder); a file that fails is not kept',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionsAction, help='change settings of the config, as key=value'
    )


def run(args: argparse.Namespace) -> None:
    format = args.format or ('openvino' if args.out.endswith('.xml') else 'onnx')
    if args.int8 and format != 'openvino':
        raise UserError('--int8 works with --format openvino, whose --out ends in .xml.')
    verify = [read_image(path) for path in list_images(args.verify)[:3]] if args.verify else []
    calibration = []
    if args.int8:
        calibration = [read_image(path) for path in list_images(args.int8)[:MOST_CALIBRATION_IMAGES]]
    path, checkpoint = find_config(args.config), args.checkpoint
    if '://' not in checkpoint:
        checkpoint = find_file(checkpoint)
    detector = load_detector(path, checkpoint, cfg_options=args.cfg_options)
    config = read_config(path)
    if args.cfg_options:
        config.merge_from_dict(args.cfg_options)
    metadata = describe(detector, config, os.path.splitext(os.path.basename(path))[0], checkpoint)
    report = partial(print)  # before a step of many seconds, in a pipe, too
    export_detector(detector, metadata, args.out, format, args.batch, verify, calibration, report)
    say(f'written: {args.out}')
    if metadata.masks and detector.mask_head.panoptic is not None:
        say('the file gives the masks of detections; merging them into a panoptic map is not in it')
