"""Download and verify the published weights of a model.

    mmcondetr download conditional-detr_r50_8xb2-50e_coco --out weights
    mmcondetr list --weights                                             # lists them

The file is stored in PyTorch's checkpoint folder, where load_from and Detector also find it by its URL; --out adds a
copy in another folder. An interrupted download is resumed by the next call.
"""

from __future__ import annotations

import argparse

from mmcondetr.checkpoints.published import fetch, find_model
from mmcondetr.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', help='name of a model, as shown by mmcondetr list')
    parser.add_argument('--out', help="folder for a copy under the publisher's name")


def run(args: argparse.Namespace) -> None:
    model = find_model(args.name)
    say(f'{model.name}: {model.weights}')
    fetched = fetch(args.name, args.out)
    say(f'SHA-256 {fetched.sha256} ({fetched.verified})')
    say(fetched.path)
