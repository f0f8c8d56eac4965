"""Resuming needs the model that was trained: what differs is said before the optimizer's state fails to fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmcondetr.checkpoints.query_groups import OTHERS
from mmcondetr.checkpoints.source import RECORD
from mmcondetr.errors import UserError
from mmcondetr.registry import MODELS

_QUERIES = 'training_queries'
_SETTINGS = {'query_embedding': 'num_queries'}  # a part of the model -> the setting that it comes from, if not its name
_SHOWN = 3


def check_same_model(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Compare the parameters of a detector of ours with those in the checkpoint that the runner resumes.

    The weights might be fitted to the model, as with ``load_from``, but the optimizer's state cannot be.

    Raises:
        UserError: a parameter is missing, left over or of another shape.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    given = checkpoint.get('state_dict')
    resumes = runner._resume and 'optimizer' in checkpoint  # mmengine keeps the former only there
    if not resumes or not isinstance(given, Mapping):
        return
    if not isinstance(model, MODELS.get('mmcondetr.ConditionalDETR')):  # others' load hooks may rename tensors
        return
    found = _differences(model, given)
    if not any(found.values()):
        return
    where = getattr(given, '_metadata', {}).get('', {}).get(RECORD, {}).get('where') or runner._load_from
    counts = _count_groups(given), _count_groups(model.state_dict())
    groups = f'{counts[0]} groups of object queries in the checkpoint, {counts[1]} in the config; '
    raise UserError(
        f"--resume: the models of checkpoint '{where}' and config '{runner.cfg.filename or 'made in Python'}' differ "
        f'in {_fields(found)} ({groups if counts[0] != counts[1] else ""}{_listed(found)}). Resume with the config '
        'that the checkpoint was trained with, or start a new run from its weights: pass it as load_from, without '
        '--resume.'
    )


def _differences(model: nn.Module, given: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names of parameters by what is different about them."""
    state, parameters = model.state_dict(), dict(model.named_parameters())
    return {
        'only the checkpoint has': [n for n in given if n not in state and not n.endswith('num_batches_tracked')],
        'only the config has': [name for name in parameters if name not in given],
        'of other shapes are': [n for n, value in parameters.items() if n in given and given[n].shape != value.shape],
    }


def _count_groups(names: Mapping[str, Tensor]) -> int:
    return 1 + sum(bool(OTHERS.match(name)) for name in names)


def _fields(found: Mapping[str, list[str]]) -> str:
    """The settings that the parameters come from, the training queries first."""
    parts = {name.split('.')[0] for names in found.values() for name in names}
    return ', '.join(f'model.{_SETTINGS.get(part, part)}' for part in sorted(parts, key=lambda x: (x != _QUERIES, x)))


def _listed(found: Mapping[str, list[str]]) -> str:
    parts = []
    for title, names in found.items():
        more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
        parts += [f'{title} {", ".join(names[:_SHOWN])}{more}'] if names else []
    return '; '.join(parts)
