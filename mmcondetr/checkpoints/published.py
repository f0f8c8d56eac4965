"""Weights that others published for our configs, as the metafiles beside the configs list them."""

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
from mmcondetr.checkpoints.files import replacing
from mmcondetr.compat.config_scope import config_root
from mmcondetr.errors import UserError
from mmcondetr.writing import file_sha256


class PublishedModel(NamedTuple):
    """A row of the model table.

    Attributes:
        name: of the row; that of its config, with a suffix where there are several weights for one.
        config: path below the folder of configs.
        paper_ap: AP in % of the paper's own run on COCO val2017, None where it has none.
        weights: URL, None where nobody published any.
        weights_ap: AP in % that their publisher reports.
    """

    name: str
    config: str
    paper_ap: float | None
    weights: str | None
    weights_ap: float | None


class Fetched(NamedTuple):
    """Weights on this machine: where, their SHA-256, and whom it was held against."""

    path: str
    sha256: str
    verified: str


@cache
def list_models() -> tuple[PublishedModel, ...]:
    """Every row of every metafile, in order of folders and rows."""
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
    """Every config that is meant to be run, in a metafile or not, as a path below the folder of configs."""
    root = config_root()
    return [path.relative_to(root).as_posix() for path in sorted(root.glob('*/*.py')) if path.parent.name != '_base_']


def find_model(name: str) -> PublishedModel:
    """The row of this name that has weights.

    Raises:
        UserError: there is no such row, or it has no weights; the message names what comes close.
    """
    models = list_models()
    wanted = name.removesuffix('.py')
    found = next((model for model in models if model.name == wanted), None)
    if found is None:
        names = [model.name for model in models]
        close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
        raise UserError(f"There is no model '{name}'. " + _close(close))
    if found.weights is None:
        system = wanted.split('_')[0]
        others = [model.name for model in models if model.weights and model.name.startswith(system)]
        raise UserError(f"Nobody published weights for '{name}' that are known here. {_close(others)}")
    return found


def _close(names: Sequence[str]) -> str:
    return f'Close to it: {", ".join(names)}.' if names else 'mmcondetr list shows all.'


def fetch(name: str, folder: str | os.PathLike | None = None) -> Fetched:
    """Download the weights of a model, unless they are here, and hold them against their SHA-256.

    Publishers who put the start of the SHA-256 into the file's name are taken at their word. For all others it is
    computed at the first download and kept beside the file as ``<name>.sha256``: whatever changes later is noticed.

    Args:
        name: of a row of the model table.
        folder: where to put a copy under the publisher's name; in PyTorch's folder of checkpoints only where None.

    Raises:
        UserError: see :func:`find_model` and :func:`~mmcondetr.checkpoints.download.download`; or the file is not what
            was downloaded first.
    """
    model = find_model(name)
    path = Path(download(model.weights))
    digest = file_sha256(path)
    kept = path.with_name(f'{path.name}.sha256')
    prefix = hash_prefix(path.name)
    if prefix is not None:
        verified = f'begins with {prefix}, as its publisher says'
    elif not kept.is_file():
        with replacing(kept) as temporary:
            temporary.write_text(f'{digest}  {path.name}\n')
        verified = f'its publisher states none; kept in {kept} for the next time'
    elif kept.read_text().split()[:1] == [digest]:
        verified = 'the same as at the first download'
    else:
        raise UserError(
            f"'{path}' is not what was downloaded first: its SHA-256 is {digest}, and {kept} says "
            f'{kept.read_text().split()[0]}. If you trust the new file remove {kept.name}, else the file.'
        )
    if folder is not None:
        target = Path(folder) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
        path = target
    return Fetched(str(path), digest, verified)
