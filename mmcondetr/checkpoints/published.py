"""Weights published by others for our configs, as listed in the metafiles next to the configs."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from mmcondetr.checkpoints.download import download, hash_prefix
from mmcondetr.compat.config_scope import config_root
from mmcondetr.errors import UserError
from mmcondetr.writing import file_sha256, replacing


class PublishedModel(NamedTuple):
    """A row of the model table.

    Attributes:
        name: the config's name, with a suffix if there are several weights for it.
        config: path relative to the folder of configs.
        paper_ap: AP in % on COCO val2017 in the paper; None if it has none.
        weights: URL; None if none are published.
        weights_ap: AP in % reported by the publisher of the weights.
    """

    name: str
    config: str
    paper_ap: float | None
    weights: str | None
    weights_ap: float | None


class Fetched(NamedTuple):
    """Downloaded weights: path, SHA-256, and what the hash was verified against."""

    path: str
    sha256: str
    verified: str


@cache
def list_models() -> tuple[PublishedModel, ...]:
    """All rows of all metafiles, in order."""
    root, models = config_root(), []
    for path in sorted(root.glob('*/metafile.yml')):
        for entry in yaml.safe_load(path.read_text(encoding='utf-8'))['Models']:
            metrics = next((result['Metrics'] for result in entry.get('Results') or [] if 'Metrics' in result), {})
            models.append(
                PublishedModel(
                    entry['Name'],
                    entry['Config'].removeprefix('configs/'),
                    metrics.get('box AP (paper)'),
                    entry.get('Weights'),
                    metrics.get('box AP') if entry.get('Weights') else None,
                )
            )
    return tuple(models)


def list_configs() -> list[str]:
    """All runnable configs, listed in a metafile or not, as paths relative to the folder of configs."""
    root = config_root()
    return [path.relative_to(root).as_posix() for path in sorted(root.glob('*/*.py')) if path.parent.name != '_base_']


def find_model(name: str) -> PublishedModel:
    """The row of this name, which must have weights.

    Raises:
        UserError: there is no such row, or it has no weights; the message suggests similar names.
    """
    models = list_models()
    query = name.removesuffix('.py')
    found = next((model for model in models if model.name == query), None)
    if found is None:
        names = [model.name for model in models]
        close = difflib.get_close_matches(query, names, n=3, cutoff=0.5)
        raise UserError(f"There is no model '{name}'. " + _suggest(close))
    if found.weights is None:
        system = query.split('_')[0]
        others = [model.name for model in models if model.weights and model.name.startswith(system)]
        raise UserError(f"No published weights for '{name}' are known. {_suggest(others)}")
    return found


def _suggest(names: Sequence[str]) -> str:
    return f'Similar: {", ".join(names)}.' if names else '"mmcondetr list" shows all.'


def fetch(name: str, folder: str | os.PathLike | None = None) -> Fetched:
    """Download the weights of a model, unless present, and verify their SHA-256.

    If the file name contains the start of a SHA-256, it must match. Otherwise the hash is computed at the first
    download and stored next to the file as ``<name>.sha256``, so that later changes are detected.

    Args:
        name: a row of the model table.
        folder: where to put a copy under the publisher's name; None for PyTorch's checkpoint cache only.

    Raises:
        UserError: see :func:`find_model` and :func:`~mmcondetr.checkpoints.download.download`; or the file
            differs from the first download.
    """
    model = find_model(name)
    path = Path(download(model.weights))
    digest = file_sha256(path)
    kept = path.with_name(f'{path.name}.sha256')
    prefix = hash_prefix(path.name)
    if prefix is not None:
        verified = f'starts with {prefix}, as stated in its name'
    elif not kept.is_file():
        with replacing(kept) as temporary:
            temporary.write_text(f'{digest}  {path.name}\n')
        verified = f'none published; stored in {kept} for future checks'
    elif kept.read_text().split()[:1] == [digest]:
        verified = 'same as at the first download'
    else:
        raise UserError(
            f"'{path}' differs from the first download: its SHA-256 is {digest}, but {kept} has "
            f'{kept.read_text().split()[0]}. Remove {kept.name} if you trust the new file, otherwise the file.'
        )
    if folder is not None:
        target = Path(folder) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
        path = target
    return Fetched(str(path), digest, verified)
