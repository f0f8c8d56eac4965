"""Print a config with all its base configs merged, and with --cfg-options.

mmcondetr config conditional-detr_r50_8xb2-50e_coco
mmcondetr config my_config.py --key model.bbox_head
"""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import Config

from mmcondetr.cli.common import OptionsAction
from mmcondetr.engine.check_config import check_config
from mmcondetr.engine.config import load_config
from mmcondetr.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='path of a config, or the name of one in the package')
    parser.add_argument('--key', help='print only this part, such as train_dataloader.dataset')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, help='as of mmcondetr train')


def run(args: argparse.Namespace) -> None:
    args.launcher, args.work_dir = 'none', None
    config = load_config(args)
    if args.cfg_options:  # a broken file can be printed and read; an option that training refuses is refused here, too
        check_config(config)
    if args.key is None:
        print(config.pretty_text)
        return
    part: Any = config
    for number, word in enumerate(args.key.split('.')):
        index = int(word) if word.isdigit() and isinstance(part, (list, tuple)) else word
        try:
            part = part[index]
        except (KeyError, IndexError, TypeError):
            above = '.'.join(args.key.split('.')[:number]) or 'the config'
            known = ', '.join(map(str, part)) if isinstance(part, (dict, Config)) else f'a {type(part).__name__}'
            raise UserError(f"--key {args.key}: {above} has no '{word}'; it has: {known}.") from None
    print(Config(dict(value=part)).pretty_text.removeprefix('value = '))
