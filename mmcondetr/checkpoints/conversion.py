"""Converting a checkpoint to another family's format: the tensors, and a record of their origin."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from mmcondetr.checkpoints import classes, query_groups
from mmcondetr.checkpoints.huggingface import write_configs
from mmcondetr.checkpoints.label_embeddings import split_labels
from mmcondetr.checkpoints.reading import find_file, read
from mmcondetr.checkpoints.renaming import check_complete, from_ours, is_dab, to_ours
from mmcondetr.checkpoints.rules import FAMILIES, Family
from mmcondetr.checkpoints.source import RECORD, Source, examine, hash_tensors
from mmcondetr.errors import UserError
from mmcondetr.writing import replacing, replacing_folder

TARGETS = ('mmcondetr', 'mmdet', 'authors', 'huggingface')
_WITH_91_ROWS = ('authors', 'huggingface')
_FILES = ('.pth', '.safetensors')
_LARGE = 8 << 20  # files from this size on get a progress bar


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    to: str,
    dc5: bool | None = None,
    force: bool = False,
    half: bool = False,
) -> str:
    """Convert a checkpoint file (or Hugging Face folder) of any family; returns a one-line summary.

    Args:
        source: a checkpoint of any family in rules.py.
        target: a ``.pth`` or ``.safetensors`` file; for ``huggingface`` a folder.
        to: one of ``TARGETS``.
        dc5: whether it is a DC5 model, which weights do not reveal; taken from the source if None.
        force: replace an existing ``target``.
        half: store floating-point tensors in float16, at half the size; they lose precision.

    Raises:
        UserError: the source cannot be read or is of no known family; ``target`` exists or has a wrong suffix.
    """
    path, target = find_file(source), Path(target)
    _check_target(target, to, force)
    found = examine(read(path, 'cpu'), path)
    if found is None or found.family is None:
        raise UserError(
            f"'{path}' is not a recognised Conditional DETR checkpoint; known families: {', '.join(FAMILIES)}."
        )
    tensors, _ = to_ours(found.tensors, found.family, path)
    tensors = query_groups.without_groups(split_labels(tensors), found.groups)
    check_complete(tensors, path)
    tensors, names = _with_rows(tensors, found.names, 91 if to in _WITH_91_ROWS else 80)
    dc5 = found.dc5 if dc5 is None else dc5
    layout = _layout(to, tensors, dc5, path)
    renamed = from_ours(tensors, layout, path)
    if half:
        renamed = _halve(renamed, path)
    record = _record(found, renamed, to, names, dc5)
    if to == 'huggingface':
        with replacing_folder(target) as folder:
            _write_huggingface(folder, renamed, tensors, record, names, bool(dc5))
    else:
        _write_file(target, renamed, record, to)
    rows = len(tensors[classes.HEAD[0]])
    return (
        f'{path} ({found.family.title}, {len(found.tensors)} tensors) -> {target} ({layout.title}, {len(renamed)} '
        f'tensors, {rows} classes, SHA-256 {record["tensors_sha256"][:12]}...)'
    )


def _halve(tensors: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Floating-point tensors in float16; a UserError names one that has no room in it."""
    halved = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    for name, value in halved.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(
                f"'{path}': {name} holds numbers beyond {torch.finfo(torch.float16).max:g}, the largest of float16: "
                'convert it without --half.'
            )
    return halved


def _layout(to: str, tensors: Mapping[str, Tensor], dc5: bool | None, path: str) -> Family:
    """The family to write."""
    if to == 'huggingface':
        if dc5 is None:
            raise UserError(
                f"'{path}' does not state whether it is a DC5 model, which Hugging Face's config.json must: "
                'pass --dc5 or --no-dc5.'
            )
        return FAMILIES['huggingface' if dc5 else 'huggingface-resnet']
    return FAMILIES[f'dab-{to}' if is_dab(tensors) and to != 'mmcondetr' else to]


def _check_target(target: Path, to: str, force: bool) -> None:
    if to not in TARGETS:
        raise UserError(f"--to is '{to}', and must be one of {', '.join(TARGETS)}.")
    if to == 'huggingface' and target.suffix in _FILES:
        raise UserError(f"'{target}': Hugging Face's format is a folder; use a name without {target.suffix}.")
    if to != 'huggingface' and target.suffix not in _FILES:
        raise UserError(f"'{target}' must end in {' or '.join(_FILES)}.")
    if os.path.lexists(target) and not force:
        raise UserError(f"'{target}' already exists; --force replaces it.")
    if force and target.is_dir() and not (to == 'huggingface' and (target / 'config.json').is_file()):
        raise UserError(f"'{target}' is a folder without a config.json: --force does not replace it.")
    if not target.absolute().parent.is_dir():
        raise UserError(f"The folder '{target.absolute().parent}' does not exist.")


def _with_rows(
    tensors: dict[str, Tensor], names: classes.Names | None, count: int
) -> tuple[dict[str, Tensor], classes.Names | None]:
    """Give a head of COCO's classes 80 rows, or one per category id; leave any other unchanged."""
    have = len(tensors[classes.HEAD[0]])
    if not classes.is_coco(names) or have == count:
        return tensors, names
    rows = classes.choose_rows(names, have, None, count)
    return classes.take_rows(tensors, rows, classes.unused_rows(tensors, count)), classes.default_names(count)


def _record(
    source: Source, tensors: Mapping[str, Tensor], to: str, names: classes.Names | None, dc5: bool | None
) -> dict[str, Any]:
    from mmcondetr import __version__

    return dict(
        format=to,
        classes=list(names) if names else None,
        dc5=dc5,
        source=os.path.basename(source.where),
        source_family=source.family.name,
        tensors_sha256=_hash(tensors),
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        mmcondetr_version=__version__,
    )


def _hash(tensors: Mapping[str, Tensor]) -> str:
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    if total < _LARGE:
        return hash_tensors(tensors)
    with Progress(transient=True) as progress:
        task = progress.add_task('SHA-256', total=total)
        return hash_tensors(tensors, lambda count: progress.advance(task, count))


def _save(path: Path, tensors: Mapping[str, Tensor], record: dict[str, Any], to: str, ending: str) -> None:
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    with Progress(transient=True, disable=total < _LARGE) as progress:
        progress.add_task(f'Writing {total / 2**20:.0f} MiB', total=None)
        if ending == '.safetensors':
            from safetensors.torch import save_file

            save_file(dict(tensors), path, metadata=dict(format='pt', mmcondetr=json.dumps(record)))
            return
        meta = {RECORD: record}
        if record['classes'] is not None:
            meta['dataset_meta'] = dict(classes=classes.used(record['classes']))
        torch.save({'model' if to == 'authors' else 'state_dict': dict(tensors), 'meta': meta}, path)


def _write_file(target: Path, tensors: Mapping[str, Tensor], record: dict[str, Any], to: str) -> None:
    with replacing(target) as temporary:
        _save(temporary, tensors, record, to, target.suffix)


def _write_huggingface(
    folder: Path,
    renamed: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    record: dict[str, Any],
    names: classes.Names | None,
    dc5: bool,
) -> None:
    write_configs(folder, ours, names, dc5)
    _save(folder / 'model.safetensors', renamed, record, 'huggingface', '.safetensors')
