"""Metadata of a checkpoint file: tensors, class names, whether it is a DC5 model, and its origin."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcondetr.checkpoints import classes
from mmcondetr.checkpoints.coco_panoptic_classes import STUFF
from mmcondetr.checkpoints.renaming import recognise
from mmcondetr.checkpoints.rules import Family
from mmcondetr.errors import UserError

RECORD = 'mmcondetr'
"""Key of our metadata in ``meta`` of a .pth, in the header of a safetensors file, and in ``_metadata``."""

_MODEL_TYPES = ('conditional_detr', 'detr')  # of Hugging Face's config.json
_LARGEST_CONFIG = 1 << 24  # bytes of config.json; published ones have 10,000
_AVERAGED = 'ema_state_dict'  # mmengine's EMAHook
_CONTAINERS = ('state_dict', 'model', 'model_state_dict')


class Source(NamedTuple):
    """A checkpoint as read.

    Attributes:
        tensors: under the names in the file.
        family: the naming scheme; None if unknown.
        names: class name of each row of the head, None for a row without a class; None if unknown.
        dc5: whether the backbone is dilated; None if unknown.
        record: metadata written by :mod:`mmcondetr.checkpoints.conversion`; otherwise empty.
        where: the file or URL, for messages.
        groups: number of groups of object queries, from the authors' command line; None if not given.
        stuff: names of the classes that are stuff, if the checkpoint is of a panoptic model; otherwise empty.
    """

    tensors: Mapping[str, Tensor]
    family: Family | None
    names: classes.Names | None
    dc5: bool | None
    record: dict[str, Any]
    where: str
    groups: int | None = None
    stuff: tuple[str, ...] = ()


_PACKED = getattr(torch, 'float4_e2m1fn_x2', None)  # two numbers in a byte; PyTorch converts them to no other type
_PART = 1 << 22  # numbers that are checked at a time
_FLOATING = ('weight', 'bias', 'running_mean', 'running_var')


def find_tensors(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
    """The state dict within a checkpoint, under any of the usual keys; None if there is none."""
    for key in _CONTAINERS:
        if isinstance(checkpoint.get(key), Mapping):
            return checkpoint[key]
    return checkpoint if checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values()) else None


def examine(checkpoint: Mapping[str, Any], path: str, where: str | None = None) -> Source | None:
    """Examine a checkpoint that was read from ``path``; None if it contains no state dict.

    Args:
        where: the URL, if the file came from one.

    Raises:
        UserError: the state dict contains values that are not tensors, or its SHA-256 differs from the recorded one;
            it or the averaged weights contain non-finite numbers.
    """
    where = where or path
    found = find_tensors(checkpoint)
    if found is None:
        return None
    unnamed = [name for name in found if not isinstance(name, str)]
    if unnamed:
        raise UserError(f"Checkpoint '{path}': names of tensors must be strings, but one is {unnamed[0]!r:.40}.")
    tensors = _strip_wrapper(found)
    family = recognise(tensors)
    averaged = checkpoint.get(_AVERAGED) if isinstance(checkpoint.get(_AVERAGED), Mapping) else {}
    floating = {**tensors, **{f'{_AVERAGED}.{name!s:.200}': value for name, value in averaged.items()}}
    _check_finite(floating, path, infinite=family is not None)  # unknown models may use -inf as a mask
    if family is None:
        return Source(tensors, None, None, None, {}, where)
    meta = checkpoint.get('meta') if isinstance(checkpoint.get('meta'), Mapping) else {}
    config = _neighbour_config(path)
    record = _record(meta, path)
    _check_tensors(tensors, path)
    _check_types(tensors, path)
    if 'tensors_sha256' in record and record['tensors_sha256'] != hash_tensors(tensors):
        raise UserError(
            f"Checkpoint '{path}' is damaged: the SHA-256 of its tensors differs from the one in its metadata "
            f'({record["tensors_sha256"]}). Copy or download it again.'
        )
    names = _names(checkpoint, meta, record, config, tensors, family)
    dc5, groups = _dc5(checkpoint, record, config, where), _groups(checkpoint)
    return Source(tensors, family, names, dc5, record, where, groups, _stuff(meta, names))


def _groups(checkpoint: Mapping[str, Any]) -> int | None:
    """The number of groups in the command line stored by Group DETR's authors."""
    groups = getattr(checkpoint.get('args'), 'group_detr', None)
    return groups if isinstance(groups, int) and not isinstance(groups, bool) and groups > 0 else None


def _strip_wrapper(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the prefix ``module.`` that DistributedDataParallel adds to every name."""
    wrapped = all(name.startswith('module.') for name in tensors)
    return {name[len('module.') :] if wrapped else name: value for name, value in tensors.items()}


def _check_tensors(tensors: Mapping[str, Any], path: str) -> None:
    wrong = [f'{name} ({type(value).__name__})' for name, value in tensors.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UserError(
            f"Checkpoint '{path}' has values that are not tensors in its state dict: {', '.join(wrong[:12])}."
        )


def _check_types(tensors: Mapping[str, Tensor], path: str) -> None:
    """Weights that are not floating-point would be cast silently when copied into the model."""
    wrong = [
        name
        for name, value in tensors.items()
        if value.is_complex() or value.dtype == _PACKED or (name.endswith(_FLOATING) and not value.is_floating_point())
    ]
    if wrong:
        raise UserError(
            f"Checkpoint '{path}': {wrong[0]} must hold plain floating-point numbers, but is {tensors[wrong[0]].dtype} "
            f'({len(wrong)} such tensors).'
        )


def _check_finite(tensors: Mapping[str, Any], path: str, infinite: bool) -> None:
    """NaN weights can give a plausible AP, because pycocotools counts an IoU of NaN as a match."""
    floating = {
        name: value
        for name, value in tensors.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != _PACKED
    }
    wrong = [name for name, value in floating.items() if not _is_finite(value, infinite)]
    if wrong:
        shown = ', '.join(wrong[:5]) + (', ...' if len(wrong) > 5 else '')
        raise UserError(
            f"Checkpoint '{path}' holds NaN or infinite numbers in {len(wrong)} of {len(tensors)} tensors ({shown}), "
            'read as float32: its training diverged, or the file was changed. Use an earlier checkpoint.'
        )


def _is_finite(value: Tensor, infinite: bool) -> bool:
    """Whether a tensor holds no NaN and, if ``infinite``, no infinity once it is float32, as models load it.

    A float64 can be too large for that, and PyTorch asks few types of 8 bits whether they are finite.
    """
    for part in value.reshape(-1).split(_PART):
        part = part.float()
        if not (part.isfinite() if infinite else ~part.isnan()).all():
            return False
    return True


def _record(meta: Mapping[str, Any], path: str) -> dict[str, Any]:
    if path.endswith('.safetensors') and Path(path).is_file():
        from safetensors import safe_open

        with safe_open(path, 'pt') as file:
            text = (file.metadata() or {}).get(RECORD)
        try:
            record = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:
            raise UserError(f"Checkpoint '{path}': its metadata field '{RECORD}' is not JSON ({error}).") from error
    else:
        record = meta.get(RECORD, {})
    return dict(record) if isinstance(record, Mapping) else {}


def _neighbour_config(path: str) -> dict[str, Any]:
    """The ``config.json`` next to a Hugging Face checkpoint; empty unless it is of a (Conditional) DETR.

    Raises:
        UserError: its ``id2label`` is malformed.
    """
    file = Path(path).parent / 'config.json'
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_CONFIG:  # a link may lead to a device
            return {}
        config = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(config, dict) or config.get('model_type') not in _MODEL_TYPES:
        return {}
    labels = config.get('id2label')
    if labels is not None and not (isinstance(labels, dict) and all(isinstance(name, str) for name in labels.values())):
        raise UserError(f'\'{file}\': id2label must name each class, {{"0": "person", ...}}, and is {labels!r:.80}.')
    return config


def _names(
    checkpoint: Mapping[str, Any],
    meta: Mapping[str, Any],
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    family: Family | None,
) -> classes.Names | None:
    rows = next(
        (
            len(value)
            for name, value in tensors.items()
            if re.fullmatch(r'(.*\.)?(class_embed|fc_cls|class_labels_classifier)\.bias', name) and value.dim() == 1
        ),
        0,
    )
    dataset = meta.get('dataset_meta') if isinstance(meta.get('dataset_meta'), Mapping) else {}
    dataset = {str(key).lower(): value for key, value in dataset.items()}
    named = next(filter(_are_names, (record.get('classes'), dataset.get('classes'), meta.get('CLASSES'))), None)
    if not named and family is not None and family.name.startswith('huggingface'):
        named = _huggingface_names(config)
        if named and len(named) == rows - 1:  # DETR's softmax; its config does not name the background
            named = (*named, classes.BACKGROUND)
    if not named or len(named) != rows:
        # Files of our own training name their classes; others are assumed to be COCO's if the number of rows fits.
        return classes.default_names(rows)
    return tuple(named)


def _stuff(meta: Mapping[str, Any], names: classes.Names | None) -> tuple[str, ...]:
    """The stuff of a checkpoint's data set, or COCO's if the rows are those of its panoptic classes."""
    known = set(classes.used(names or ()))
    dataset = meta.get('dataset_meta') if isinstance(meta.get('dataset_meta'), Mapping) else {}
    stuff = dataset.get('stuff_classes') or (STUFF if set(classes.COCO_PANOPTIC) <= known else ())
    return tuple(stuff) if _are_names(stuff) and set(stuff) <= known else ()


def check_class_names(checkpoint: Mapping[str, Any], where: str) -> None:
    """Check ``meta['dataset_meta']``, from which mmdet takes the class names as they are.

    Raises:
        UserError: it is not a dict, or its classes are not names.
    """
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping) or 'dataset_meta' not in meta:
        return
    dataset = meta['dataset_meta']
    if not isinstance(dataset, Mapping):
        raise UserError(
            f"Checkpoint '{where}': meta.dataset_meta must be a dict of class names and colours, but is a "
            f'{type(dataset).__name__}.'
        )
    for key, names in dataset.items():
        if str(key).lower() == 'classes' and names and not isinstance(names, str) and not _are_names(names):
            raise UserError(f"Checkpoint '{where}': meta.dataset_meta.{key} must be a list of class names.")
        if str(key).lower() == 'classes' and any(
            '\ud800' <= char <= '\udfff' for char in ''.join(map(str, names or ()))
        ):
            raise UserError(f"Checkpoint '{where}': meta.dataset_meta.{key} has a name that is no valid Unicode.")


def _are_names(names: Any) -> bool:
    """Whether a value of the file names classes, None for a row without one."""
    return (
        isinstance(names, (list, tuple))
        and bool(names)
        and all(name is None or isinstance(name, str) for name in names)
    )


def _huggingface_names(config: Mapping[str, Any]) -> classes.Names | None:
    labels = config.get('id2label') or {}
    names = [labels.get(str(index)) for index in range(len(labels))]
    if all(name is None or re.fullmatch(r'LABEL_\d+', name) for name in names):
        return None
    return tuple(None if name is None or re.fullmatch(r'N/A|LABEL_\d+', name) else name for name in names)


def _dc5(
    checkpoint: Mapping[str, Any], record: Mapping[str, Any], config: Mapping[str, Any], where: str
) -> bool | None:
    """From the first available of our record, the authors' command line, Hugging Face's config and the file name."""
    for known in (record.get('dc5'), getattr(checkpoint.get('args'), 'dilation', None), config.get('dilation')):
        if isinstance(known, bool):
            return known
    *_, folder, name = ('', *where.lower().split('/'))
    if name in (
        'model.safetensors',
        'pytorch_model.bin',
    ):  # Hugging Face names the folder, not the file, after the model
        name = where.lower() if '://' in where else folder
    if 'dc5' in name:
        return True
    published = r'conditionaldetr_r(50|101)_|conditional-detr[-_]r(esnet-)?(50|101)|conditional_detr_r(50|101)_'
    return False if re.search(published, name) else None


def hash_tensors(tensors: Mapping[str, Tensor], tick: Any = None) -> str:
    """SHA-256 over names, types, shapes and values, sorted by name; ``tick(bytes)`` is called after every tensor."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f'{name}|{str(value.dtype)}|{tuple(value.shape)}|'.encode())
        if value.numel():
            digest.update(memoryview(_little_endian(value)))
        if tick is not None:
            tick(value.numel() * value.element_size())
    return digest.hexdigest()


def _little_endian(value: Tensor) -> Any:
    array = value.reshape(-1).view(torch.uint8).numpy()
    if sys.byteorder == 'big':  # files are little-endian, and so is the hash
        array = array.reshape(-1, value.element_size())[:, ::-1].copy()
    return array


def with_record(source: Source, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint in mmengine's format, with its metadata where the model finds it.

    ``state_dict`` keeps the file's names, because only the model knows which names it needs (mmdet's own class needs
    mmdet's). The metadata is stored in ``_metadata``, which PyTorch and mmengine pass to the model's load hooks; the
    class names also in ``meta``, where DetInferencer looks for them.
    """
    if source.family is None and 'state_dict' not in checkpoint and find_tensors(checkpoint) is not checkpoint:
        return dict(checkpoint)  # written by another program
    tensors = OrderedDict(source.tensors)
    metadata = OrderedDict(getattr(find_tensors(checkpoint), '_metadata', {}))
    known = dict(names=source.names, dc5=source.dc5, where=source.where, groups=source.groups, stuff=source.stuff)
    metadata[''] = {**metadata.get('', {}), RECORD: known}
    tensors._metadata = metadata
    if source.family is None and find_tensors(checkpoint) is checkpoint:
        return tensors  # bare weights of another network, for example a backbone
    result = {} if find_tensors(checkpoint) is checkpoint else dict(checkpoint)
    if 'state_dict' not in result:
        result.pop('model', None)  # already in state_dict
    meta = dict(checkpoint['meta']) if isinstance(checkpoint.get('meta'), Mapping) else {}
    if source.family is not None and source.names is not None:
        meta.setdefault('dataset_meta', dict(classes=classes.used(source.names)))
    return {**result, 'meta': meta, 'state_dict': tensors}
