"""Applies the tables of rules.py, in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

import torch
from torch import Tensor

from mmcondetr.checkpoints.rules import COUNTERS, FAMILIES, Family
from mmcondetr.errors import UserError

_MAX_INDEX = 64  # upper bound of {i}: layers of a transformer, blocks of a stage
_VALUES = {
    '{p}': ('weight', 'bias'),
    '{n}': ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'),
    '{i}': tuple(map(str, range(_MAX_INDEX))),
}
_SHOWN = 100  # names in one message

Source = tuple[str, ...]  # the names whose rows, concatenated, are one tensor of ours; usually one


def _expand(theirs: Source, ours: str) -> Iterable[tuple[Source, str]]:
    for placeholder, values in _VALUES.items():
        if placeholder in ours:
            for value in values:
                yield from _expand(
                    tuple(name.replace(placeholder, value) for name in theirs), ours.replace(placeholder, value)
                )
            return
    yield theirs, ours


@cache
def _tables(family: str) -> tuple[dict[str, tuple[Source, str]], dict[str, Source]]:
    """Their name -> (all sources, our name), and our name -> sources; if several rules match, the first is used."""
    forward: dict[str, tuple[Source, str]] = {}
    backward: dict[str, Source] = {}
    for theirs, ours in FAMILIES[family].rules:
        for sources, target in _expand((theirs,) if isinstance(theirs, str) else theirs, ours):
            forward.update({name: (sources, target) for name in sources})
            backward.setdefault(target, sources)
    return forward, backward


def is_ignored(name: str, family: Family) -> bool:
    """Whether the family ignores this tensor."""
    patterns = family.ignored if family.keeps_counters else (COUNTERS, *family.ignored)
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def recognise(names: Iterable[str]) -> Family | None:
    """The family, possibly our own, that knows most of the names; None if none knows at least half of them."""
    names = list(names)
    known = {family.name: sum(name in _tables(family.name)[0] for name in names) for family in FAMILIES.values()}
    best = max(known, key=known.get)  # ties go to the first, which is ours
    return FAMILIES[best] if known[best] * 2 >= len(names) > 0 else None


def list_names(title: str, names: Iterable[str]) -> list[str]:
    """Lines of an error message that list the names; empty if there are none."""
    names = list(names)
    more = [f'  ... and {len(names) - _SHOWN} more'] if len(names) > _SHOWN else []
    return [f'{title} ({len(names)}):', *(f'  {name}' for name in names[:_SHOWN]), *more] if names else []


def to_ours(tensors: Mapping[str, Tensor], family: Family, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Rename every tensor to our names.

    Args:
        where: the file, for messages.

    Returns:
        The tensors, and the names that the family ignores.

    Raises:
        UserError: the family does not have a name, or a part of a tensor is missing; lists them.
    """
    table = _tables(family.name)[0]
    ignored = [name for name in tensors if is_ignored(name, family)]
    names = [name for name in tensors if name not in set(ignored)]
    unknown = [name for name in names if name not in table]
    used = {table[name] for name in names if name in table}
    missing = [source for sources, _ in used for source in sources if source not in tensors]
    if unknown or missing:
        raise UserError(
            '\n'.join(
                [
                    f'{where}: recognised as a checkpoint of {family.title}, but its names do not fit.',
                    *list_names('Left over', unknown),
                    *list_names('Missing', sorted(missing)),
                ]
            )
        )
    renamed = {}
    for name in names:
        sources, target = table[name]
        if name == sources[0]:
            renamed[target] = tensors[name] if len(sources) == 1 else torch.cat([tensors[part] for part in sources])
    return renamed, ignored


def from_ours(tensors: Mapping[str, Tensor], family: Family, where: str) -> dict[str, Tensor]:
    """Rename our tensors to the family's names, omitting those that it ignores.

    Raises:
        UserError: the family cannot represent a tensor (for example an ablation's); lists them.
    """
    backward = _tables(family.name)[1]
    tensors = {name: value for name, value in tensors.items() if not is_ignored(name, family)}
    unknown = [name for name in tensors if name not in backward]
    if unknown:
        raise UserError(
            '\n'.join(
                [
                    f'{where}: the format of {family.title} cannot represent some tensors.',
                    *list_names('Left over', unknown),
                ]
            )
        )
    renamed = {}
    for name, value in tensors.items():
        sources = backward[name]
        parts = value.chunk(len(sources)) if len(sources) > 1 else (value,)
        renamed.update({source: part.contiguous() for source, part in zip(sources, parts)})
    return renamed


def is_dab(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors under our names belong to a DAB-DETR."""
    return any(name.startswith('decoder.reference_point.query_predictor.') for name in tensors)


def _omitted_stages(tensors: Mapping[str, Tensor]) -> set[str]:
    """Name prefixes of the last backbone stages if the neck's input shows that the model was built without them."""
    last = max((int(name[len('backbone.layer')]) for name in tensors if name.startswith('backbone.layer')), default=4)
    outputs = [
        tensors[name].shape[0]
        for name in (f'backbone.layer{last}.0.conv3.weight', f'backbone.layer{last}.0.conv2.weight')
        if name in tensors
    ]
    neck = tensors.get('neck.convs.0.conv.weight')
    if neck is None or not outputs or outputs[0] != neck.shape[1]:
        return set()
    return {f'backbone.layer{stage}.' for stage in range(last + 1, 5)}


def check_complete(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise if a tensor is missing; the number of layers is inferred from the names.

    Args:
        tensors: under our names.

    Raises:
        UserError: lists the names.
    """
    bottleneck = any('.conv3.' in name for name in tensors)
    omitted = _omitted_stages(tensors)
    missing = []
    for _, ours in FAMILIES['dab-authors' if is_dab(tensors) else 'authors'].rules:
        if '.patterns.' in ours or '.activation.' in ours or ours.startswith('training_queries.'):  # optional parts
            continue
        if not bottleneck and ('.conv3.' in ours or '.bn3.' in ours or '.downsample.' in ours):
            continue
        head, found, _ = ours.partition('{i}')
        if head in omitted:
            continue
        count = 1
        if found and 'cross_attn.query_position_proj' not in ours and 'downsample' not in ours:
            pattern = re.compile(re.escape(head) + r'(\d+)\.')
            count += max((int(match.group(1)) for match in map(pattern.match, tensors) if match), default=0)
        names = [name for (name,), _ in _expand((ours,), ours) if not re.fullmatch(COUNTERS, name)]
        if found:
            names = [name for name in names if int(name[len(head) :].partition('.')[0]) < count]
        missing += [name for name in names if name not in tensors]
    if missing:
        raise UserError(
            '\n'.join(
                [
                    f'{where}: tensors of a Conditional DETR are missing (our names).',
                    *list_names('Missing', missing),
                ]
            )
        )
