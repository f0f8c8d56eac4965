"""Download published weights of a model of the table, verified, to be used as they are.

    mmcondetr download conditional-detr_r50_8xb2-50e_coco --out weights
    mmcondetr list --weights                                             # what there is

The file goes into PyTorch's folder of checkpoints, where load_from and Detector find it by its URL, too, and with --out
a copy into that folder. An interrupted download goes on where it stopped.
"""

from __future__ import annotations

import argparse

from mmcondetr.checkpoints.published import fetch, find_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', help='of a model, as mmcondetr list shows it')
    parser.add_argument('--out', help='a folder for a copy under the name that its publisher gave it')


def run(args: argparse.Namespace) -> None:
    model = find_model(args.name)
    print(f'{model.name}: {model.weights}')
    fetched = fetch(args.name, args.out)
    print(f'SHA-256 {fetched.sha256} ({fetched.verified})')
    print(fetched.path)
