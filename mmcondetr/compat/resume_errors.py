"""A clear error for ``--resume`` with a damaged file or one that is not a training state."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from numbers import Number, Real
from typing import Any

import torch
from torch import Tensor

from mmcondetr.errors import UserError

_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_MOST_CHANGE = 1000
"""Times by which a resumed run's epochs may be longer than its current ones: its batch size or data were changed."""
_HUB = ('log_scalars', 'runtime_info', 'resumed_keys')


def patch_runner(runner: type) -> None:
    """Let mmengine's ``Runner.resume`` report an invalid file instead of failing with a traceback."""
    original = runner.resume
    if getattr(original, 'says_what_is_wrong', False):
        return

    def resume(self: Any, filename: str, *args: Any, **kwargs: Any) -> None:
        load = self.load_checkpoint  # a subclass's, perhaps

        def load_checked(*args: Any, **kwargs: Any) -> Any:
            checkpoint = load(*args, **kwargs)
            _check_training_state(checkpoint, filename)
            return checkpoint

        fresh = _settings(self)
        self.load_checkpoint = load_checked
        try:
            original(self, filename, *args, **kwargs)
            _check_resumed(self, fresh)
            _check_counts(self.train_loop)
            _check_end(self, filename)
        except _FAILURES as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            reason = (str(error).strip().splitlines() or [''])[0][:200]
            raise UserError(
                f"--resume: '{filename}' cannot be resumed: its training state is damaged, or that of another model, "
                f'optimizer or schedule ({type(error).__name__}: {reason}). To start from its weights alone, pass it '
                'as load_from, without --resume.'
            ) from error
        finally:
            del self.load_checkpoint

    resume.says_what_is_wrong = True
    runner.resume = resume


def _check_training_state(checkpoint: Any, filename: str) -> None:
    """Raise UserError for files that are not training states, and ValueError for a state of wrong types."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    if not isinstance(meta, Mapping) or not {'epoch', 'iter'} & set(meta) or 'message_hub' not in checkpoint:
        raise UserError(
            f"--resume: '{filename}' holds weights, and not the state of a training run. To start from these weights "
            'pass it as load_from (in the config, or --cfg-options load_from=...), without --resume.'
        )
    for name in ('epoch', 'iter'):
        if type(meta.get(name)) is not int or meta[name] < 0:
            raise ValueError(f'meta.{name} is {meta.get(name)!r:.40}')
    hub = checkpoint['message_hub']
    if not isinstance(hub, Mapping) or not all(isinstance(hub.get(name), Mapping) for name in _HUB):
        raise ValueError(f'message_hub lacks one of {", ".join(_HUB)}')
    for name in (*hub['runtime_info'], *hub['log_scalars']):  # mmengine stores no others
        if not isinstance(name, str):
            raise ValueError(f'message_hub has the name {name!r:.40}')
        if hub['resumed_keys'].get(name) is not True:
            raise ValueError(f'message_hub.resumed_keys.{name} is {hub["resumed_keys"].get(name)!r:.40}')
    for name, value in hub['runtime_info'].items():
        if name.startswith('best_score') and not (isinstance(value, Real) and abs(value) <= sys.float_info.max):
            raise ValueError(f'message_hub.runtime_info.{name} is {value!r:.40}')


def _settings(runner: Any) -> list[dict]:
    """The settings of the optimizer's groups, before they are replaced by the file's."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    return [dict(group) for group in getattr(optimizer, 'param_groups', ())]


def _check_resumed(runner: Any, fresh: list[dict]) -> None:
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    for group, before in zip(getattr(optimizer, 'param_groups', ()), fresh):
        for name, value in before.items():
            if name != 'params' and not _alike(group.get(name), value):
                raise ValueError(f'optimizer.param_groups has {name}={group.get(name)!r:.40}')
            if name in ('capturable', 'differentiable') and group.get(name) != value:  # for another kind of program
                raise ValueError(f'optimizer.param_groups has {name}={group.get(name)!r:.40}, the config {value!r:.40}')
    _check_optimizer_state(getattr(optimizer, 'state', {}))
    schedulers = runner.param_schedulers
    for scheduler in schedulers if isinstance(schedulers, list) else []:
        for name in ('last_step', '_global_step', 'begin', 'end'):
            if not isinstance(getattr(scheduler, name, 0), Number):
                raise ValueError(f'param_schedulers has {name}={getattr(scheduler, name)!r:.40}')
        # The rate is multiplied by gamma to the power of a milestone's count, which Python would compute for ever.
        counts = getattr(scheduler, 'milestones', {})
        if not isinstance(counts, Mapping) or not all(type(n) is int and 0 <= n < 1000 for n in counts.values()):
            raise ValueError(f'param_schedulers has milestones={counts!r:.60}')


def _check_optimizer_state(states: Mapping[Tensor, Mapping[str, Any]]) -> None:
    """Raise ValueError for a value of another shape than its parameter, or of another kind than the others' values."""
    kinds: dict[str, set[str]] = {}
    for parameter, state in states.items():
        for name, value in state.items():
            tensor = isinstance(value, Tensor)
            if tensor and value.dim() and value.shape != parameter.shape:
                raise ValueError(f'optimizer.state has {name} of shape {tuple(value.shape)}')
            if tensor and not value.isfinite().all():
                raise ValueError(f'optimizer.state has {name} with NaN or infinity')
            if name == 'step' and (not isinstance(value, (Number, Tensor)) or not 0 <= float(value) < float('inf')):
                raise ValueError(f'optimizer.state has step={value!r:.40}')
            if value is not None or name != 'momentum_buffer':  # SGD has none before a parameter's first gradient
                kinds.setdefault(name, set()).add('a number' if tensor and not value.dim() else type(value).__name__)
    for name, found in kinds.items():
        if len(found) > 1 and any(parameter.dim() for parameter in states):
            raise ValueError(f'optimizer.state has {name} of several kinds: {", ".join(sorted(found))}')


def _check_end(runner: Any, filename: str) -> None:
    """Beyond its end mmengine trains nothing and says nothing, or loads as many batches as the file says.

    Raises:
        UserError: the checkpoint is beyond the end of this config's training.
    """
    loop = runner.train_loop
    by_epoch = type(loop).__name__ != 'IterBasedTrainLoop'
    unit, now, end = ('epoch', loop.epoch, loop.max_epochs) if by_epoch else ('iter', loop.iter, loop.max_iters)
    if now > end:
        raise UserError(
            f"--resume: '{filename}' is at {unit} {now}, and training ends at train_cfg.max_{unit}s={end}: raise that, "
            'or give the file as load_from, without --resume.'
        )


def _check_counts(loop: Any) -> None:
    """Raise ValueError for a number of iterations that cannot be that of the epochs: the log and schedule rely on it.

    It may be that of another batch size or data set, whose epochs had another length.
    """
    if loop.iter < loop.epoch:
        raise ValueError(f'meta.iter is {loop.iter} after {loop.epoch} epochs')
    if type(loop).__name__ != 'IterBasedTrainLoop':  # that one's end is checked, and its epochs are not counted
        length = len(loop.dataloader)
        if loop.iter > _MOST_CHANGE * (loop.epoch + 1) * length:
            raise ValueError(
                f'meta.iter is {loop.iter} in epoch {loop.epoch + 1}, and an epoch has {length} iterations'
            )


def _plausible(value: Number | Tensor, before: Number | Tensor) -> bool:
    """Whether a setting is finite, and not below zero where this run's is not: a negative rate trains upwards."""
    return math.isfinite(value) and (float(value) >= 0 or float(before) < 0)


def _alike(value: Any, before: Any) -> bool:
    if isinstance(before, (tuple, list)):
        same = isinstance(value, (tuple, list)) and len(value) == len(before)
        return same and all(_alike(one, other) for one, other in zip(value, before))
    number = isinstance(before, (Number, Tensor)) and not isinstance(before, bool)
    return (
        isinstance(value, (Number, Tensor)) and _plausible(value, before)
        if number
        else before is None or value is None or type(value) is type(before)
    )
