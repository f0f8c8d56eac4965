"""List the configs, with the paper's AP and the weights that others published for them.

    mmcondetr list
    mmcondetr list dab --weights

AP is that of the papers' own runs on COCO val2017, and after 'weights' the publisher's; none is a result of this
project.
"""

from __future__ import annotations

import argparse
from pathlib import PurePosixPath

from mmcondetr.checkpoints.published import list_configs, list_models
from mmcondetr.errors import UserError
from mmcondetr.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('word', nargs='?', default='', help='only configs with this in their name')
    parser.add_argument('--weights', action='store_true', help='only configs with published weights')


def run(args: argparse.Namespace) -> None:
    listed = {model.config for model in list_models()}
    rows = [
        (model.name, _ap('paper', model.paper_ap), _ap('weights', model.weights_ap) or 'weights' * bool(model.weights))
        for model in list_models()
        if args.word in model.name and (model.weights or not args.weights)
    ]
    if not args.weights:
        rows += [
            (PurePosixPath(name).stem, '', '') for name in list_configs() if name not in listed and args.word in name
        ]
    if not rows:
        raise UserError(f"No config has '{args.word}' in its name" + (' and published weights.' * args.weights or '.'))
    width = max(len(name) for name, *_ in rows)
    for name, paper, weights in rows:
        say(f'{name:{width}}  {paper:13}  {weights}'.rstrip())


def _ap(whose: str, ap: float | None) -> str:
    return '' if ap is None else f'{whose} AP {ap:.1f}'
