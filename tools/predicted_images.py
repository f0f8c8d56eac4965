"""A trained model and the images of its config's test set, one at a time, for the tools that look at predictions."""

from __future__ import annotations

import mmcondetr  # noqa: F401  isort: skip  (registers everything; before mmdet)
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmcondetr.engine.config import find_config


def load_with_images(
    path: str, checkpoint: str, options: dict | None, count: int | None, device: str = 'cpu'
) -> tuple[Config, nn.Module, DataLoader]:
    """The config, the model, and batches of one test image.

    Args:
        path: the config's, or the name of one in the package.
        checkpoint: a checkpoint that fits it.
        options: changes of the config, as of ``--cfg-options``.
        count: only so many images, the first; None for all.
        device: the model's.
    """
    config = Config.fromfile(find_config(path))
    config.merge_from_dict(options or {})
    init_default_scope('mmdet')
    config.test_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    config.test_dataloader.dataset.indices = count
    model = init_detector(config, checkpoint, device=device)
    return config, model, Runner.build_dataloader(config.test_dataloader)
