"""Never execute configs stored in checkpoints, which mmengine runs as Python.

``Runner.resume`` passes ``meta['config']`` to ``Config.fromstring``, and an inferencer without a config does so with
``message_hub['runtime_info']['cfg']`` or ``meta['cfg']``. Even a config of literals is unsafe, because its ``type`` can
be any importable function. Here configs are removed from loaded checkpoints, and weights without a config use the
config of ours that they are named after.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from mmcondetr.compat.config_scope import config_root
from mmcondetr.errors import UserError

_STORED = (('meta', 'config'), ('meta', 'cfg'), ('message_hub', 'runtime_info', 'cfg'))
_TIME = r'_\d{8}_\d{6}'  # appended to config names by mmengine, and to names of released weights by mmdet


def without_configs(checkpoint: Any) -> Any:
    """A copy of the checkpoint without stored configs; returned unchanged if it has none."""
    for path in _STORED:
        checkpoint = _without(checkpoint, path)
    return checkpoint


def _without(value: Any, path: tuple[str, ...]) -> Any:
    key, rest = path[0], path[1:]
    if not isinstance(value, Mapping) or key not in value:
        return value
    if not rest:
        return {other: kept for other, kept in value.items() if other != key}
    inner = _without(value[key], rest)
    return value if inner is value[key] else {**value, key: inner}


def patch_checkpoint_loader(loader: type) -> None:
    """Let mmengine's ``CheckpointLoader``, used by all runners and inferencers, remove stored configs."""
    original = loader.load_checkpoint.__func__
    if getattr(original, 'leaves_configs_out', False):
        return

    def load_checkpoint(cls: type, filename: str, map_location: Any = None, logger: Any = 'current') -> Any:
        return without_configs(original(cls, filename, map_location, logger))

    load_checkpoint.leaves_configs_out = True
    loader.load_checkpoint = classmethod(load_checkpoint)


def patch_base_inferencer(inferencer: type) -> None:
    """Let mmengine's ``BaseInferencer`` find a missing config by name instead of running a stored one."""
    original = inferencer._init_model
    if getattr(original, 'finds_configs_by_name', False):
        return

    def init_model(self: Any, cfg: Any, weights: str | None, device: str = 'cpu') -> Any:
        if not cfg and weights is not None:
            cfg.update(_config_of(weights)._cfg_dict)
        return original(self, cfg, weights, device)

    init_model.finds_configs_by_name = True
    inferencer._init_model = init_model


def _config_of(weights: str) -> Any:
    """The config of ours that the training run, or else the file, is named after.

    Raises:
        UserError: there is none, or its number of classes differs from the checkpoint's.
    """
    from mmengine.config import Config
    from mmengine.runner import CheckpointLoader

    checkpoint = CheckpointLoader.load_checkpoint(weights, map_location='cpu', logger='silent')
    meta = checkpoint.get('meta') if isinstance(checkpoint.get('meta'), Mapping) else {}
    file_name = PurePosixPath(unquote(urlsplit(weights).path) if '://' in weights else Path(weights).as_posix()).stem
    found = _ours(str(meta.get('experiment_name', ''))) or _ours(file_name)
    hint = 'also pass the config that it was trained with: model=... (its work directory contains a copy)'
    if found is None:
        raise UserError(
            f"Checkpoint '{weights}' alone does not reveal which of our configs it was trained with, and a config that "
            f'is stored in a checkpoint is not executed: {hint}.'
        )
    config = Config.fromfile(found)
    classes = (meta.get('dataset_meta') or {}).get('classes')
    outputs = config.model.get('bbox_head', {}).get('num_classes')
    if isinstance(classes, (list, tuple)) and outputs is not None and len(classes) != outputs:
        raise UserError(
            f"Checkpoint '{weights}' has {len(classes)} classes, and the config that it is named after, {found.stem}, "
            f'has {outputs}: {hint}.'
        )
    return config


def _ours(name: str) -> Path | None:
    """Our config with this name, which may be followed by a timestamp and a hash; the name is untrusted."""
    name = re.sub(rf'{_TIME}([-_][0-9a-f]+)?$', '', name)
    root = config_root()
    found = [path for path in root.rglob('*.py') if path.stem == name and '_base_' not in path.relative_to(root).parts]
    return found[0] if len(found) == 1 else None
