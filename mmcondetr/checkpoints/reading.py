"""Loaders that mmengine calls for a file, a Hugging Face folder or a URL."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, get_rank

from mmcondetr.checkpoints.download import download
from mmcondetr.checkpoints.files import load_file
from mmcondetr.checkpoints.source import check_class_names, examine, with_record
from mmcondetr.checkpoints.work_dirs import best_checkpoint
from mmcondetr.errors import UserError

# Schemes in which mmengine's loaders look a model's URL up.
_NAMES = ('modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://')
_IN_FOLDER = ('model.safetensors', 'pytorch_model.bin')


def find_file(path: str | os.PathLike) -> str:
    """The checkpoint file: the weights in a Hugging Face folder, a run's best or last one, otherwise the path itself.

    Raises:
        UserError: the folder contains no weights, weights in several files, or best checkpoints of several metrics.
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isdir(path):
        return path
    for name in _IN_FOLDER:
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    parts = sorted(file.name for file in Path(path).glob('*.index.json'))
    if parts:
        raise UserError(
            f"Checkpoint folder '{path}' holds weights in several files ({parts[0]}): load them with "
            'transformers and save them with save_pretrained(folder, max_shard_size="10GB").'
        )
    found = best_checkpoint(path)
    if found is not None:
        return found
    raise UserError(
        f"Checkpoint folder '{path}' holds neither of {', '.join(_IN_FOLDER)}, nor best_*.pth, epoch_*.pth or "
        'iter_*.pth of a run.'
    )


def read(path: str | os.PathLike, map_location: Any = None) -> dict:
    """Read any file with weights, without executing code from it.

    Raises:
        UserError: the file is not a valid checkpoint; the message gives the reason.
    """
    path = find_file(path)
    try:
        return load_file(path, map_location)
    except UserError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # the readers may fail in any way on a damaged file
        raise UserError(f"Checkpoint '{path}' is damaged: {type(error).__name__}: {error}.") from error


def load_from_file(filename: str, map_location: Any = None, source: str | None = None) -> dict:
    """mmengine's loader for a local path; messages call the file ``source``.

    Raises:
        UserError: the file is not a valid checkpoint; the message gives the reason.
    """
    path = find_file(filename)
    checkpoint = read(path, map_location)
    check_class_names(checkpoint, source or path)
    found = examine(checkpoint, path, source)
    state_dict = checkpoint.get('state_dict', {})
    if found is None and not isinstance(state_dict, Mapping):
        raise UserError(
            f"Checkpoint '{source or path}': state_dict must contain tensors by name, but is a "
            f'{type(state_dict).__name__}.'
        )
    return checkpoint if found is None else with_record(found, checkpoint)


def load_from_url(filename: str, map_location: Any = None, model_dir: str | None = None) -> dict:
    """mmengine's loader for a URL: rank 0 downloads first; on other machines, one process of each."""
    outcome: list[Any] = [None]
    if get_rank() == 0:
        try:
            outcome[0] = download(filename, model_dir, read)
        except UserError as error:
            outcome[0] = error
    broadcast_object_list(outcome)
    if isinstance(outcome[0], UserError):
        raise outcome[0]
    path = outcome[0] if os.path.isfile(outcome[0]) else download(filename, model_dir, read)
    return load_from_file(path, map_location, filename)


def register_loaders(checkpoint_loader: type) -> None:
    """Replace the loaders of mmengine's ``CheckpointLoader`` for local paths, URLs and names of published models."""
    checkpoint_loader.register_scheme(prefixes='', loader=load_from_file, force=True)
    checkpoint_loader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_url, force=True)
    for scheme in _NAMES:
        known = checkpoint_loader._get_checkpoint_loader(scheme)
        if not hasattr(known, '__wrapped__'):
            sys.modules[known.__module__].load_from_http = load_from_url  # to which mmengine passes a name's URL
            checkpoint_loader.register_scheme(prefixes=scheme, loader=_by_name(known), force=True)


def _by_name(known: Callable[..., dict]) -> Callable[..., dict]:
    """mmengine's loader of models by name, with a clear error for an unknown one."""

    @wraps(known)
    def load(filename: str, map_location: Any = None) -> dict:
        try:
            return known(filename, map_location=map_location)
        except KeyError as error:
            raise UserError(f"Checkpoint '{filename}': mmengine knows no model of the name {error}.") from None

    return load
