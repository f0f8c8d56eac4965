"""Building a detector from a config and a checkpoint that must fit it."""

from __future__ import annotations

import os
import warnings
from copy import deepcopy

from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from mmcondetr.checkpoints.files import check_fits
from mmcondetr.checkpoints.reading import find_file
from mmcondetr.engine.check_config import check_config
from mmcondetr.engine.config import find_config, read_config
from mmcondetr.engine.config_options import apply_options
from mmcondetr.engine.console import without_chatter
from mmcondetr.errors import UserError


def load_detector(config: str, checkpoint: str, device: str = 'cpu', cfg_options: dict | None = None) -> nn.Module:
    """Build a detector for inference; ``checkpoint`` must contain exactly its tensors.

    Args:
        config: path of a config, or the name of one in the package.
        checkpoint: a file, a URL, a Hugging Face folder, or a run's folder, whose best checkpoint is used.
        device: such as 'cpu' or 'cuda:0'.
        cfg_options: settings to change in the config.

    Raises:
        UserError: a file is missing or cannot be read, a setting is none of the config's or cannot have its value, or
            the checkpoint does not fit; the message names keys.
    """
    path = find_config(config)
    if '://' not in checkpoint:
        checkpoint = find_file(checkpoint)
        if not os.path.isfile(checkpoint):
            raise UserError(f"Checkpoint '{checkpoint}' does not exist.")
    settings = read_config(path)
    if cfg_options:
        apply_options(settings, cfg_options)
        check_config(settings)
    if 'init_cfg' in settings.model.get('backbone', {}):
        settings.model.backbone.init_cfg = None  # the checkpoint contains these weights
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
    # Warnings are about missing class names, which are handled below; printed is from which file is read.
    with warnings.catch_warnings(record=True), without_chatter():
        if not str(settings.model.type).startswith('mmcondetr.'):  # ours check it themselves, in any format
            check_fits(init_detector(deepcopy(settings), None, device='cpu'), loaded.get('state_dict', loaded))
        model = init_detector(settings, checkpoint, device=device)
    if 'dataset_meta' not in loaded.get('meta', {}):
        model.dataset_meta = {**model.dataset_meta, **_dataset_meta(settings)}
    return model


def _dataset_meta(settings: Config) -> dict:
    from mmdet.registry import DATASETS

    dataset = DATASETS.get(settings.test_dataloader.dataset.type)
    return {**getattr(dataset, 'METAINFO', {}), **settings.test_dataloader.dataset.get('metainfo', {})}
