"""Resuming in the middle of a data loader, without reloading its batches; what the checkpoint says otherwise."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from mmengine.optim import _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader, Sampler

from mmcondetr.errors import UserError


def drawing_sampler(loader: DataLoader) -> Sampler:
    """The sampler that draws indices; with a batch sampler, ``loader.sampler`` is an unused one."""
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def skip_batches(loader: DataLoader, batches: int) -> bool:
    """Let the next pass over ``loader`` skip this many batches; returns whether its sampler supports that."""
    sampler = drawing_sampler(loader)
    if type(loader.batch_sampler) is not BatchSampler or not hasattr(sampler, 'skip'):
        return False
    sampler.skip = batches * loader.batch_sampler.batch_size
    return True


class _AdvancedIterator:
    """Replaces mmengine's iterator in a loop that would load and discard the batches of ``iterations`` steps."""

    def __init__(self, loader: DataLoader, iterations: int) -> None:
        self._loader = loader
        self._to_skip = iterations
        infinite = isinstance(drawing_sampler(loader), InfiniteSampler)
        self._epoch, self._within = (0, iterations) if infinite else divmod(iterations, len(loader))
        self._iterator: _InfiniteDataloaderIterator | None = None

    def __next__(self) -> Any:
        if self._to_skip > 0:
            self._to_skip -= 1
            return None
        if self._iterator is None:  # only now, because hooks have meanwhile set the sampler's epoch to the loop's, 0
            self._iterator = self._start()
        return next(self._iterator)

    def _start(self) -> _InfiniteDataloaderIterator:
        drawing_sampler(self._loader).set_epoch(self._epoch)
        skipped = skip_batches(self._loader, self._within)
        iterator = _InfiniteDataloaderIterator(self._loader)
        iterator._epoch = self._epoch
        for _ in range(0 if skipped else self._within):
            next(iterator)
        return iterator


def advance(loop: IterBasedTrainLoop) -> None:
    """Call after resuming and before ``run``, which discards one batch per step that the loop has done."""
    loop.dataloader_iterator = _AdvancedIterator(loop.dataloader, loop.iter)


def advance_epoch(loader: DataLoader, batches: int | None) -> int:
    """Start the next pass over ``loader`` in the middle of an epoch; returns the number of skipped batches.

    The epoch is restarted, with a warning, if ``batches`` is None (it was counted with another number of processes) or
    if the sampler cannot start in the middle.
    """
    if type(batches) is int and 0 < batches < len(loader) and skip_batches(loader, batches):
        return batches
    print_log(
        'The checkpoint is from the middle of an epoch, which cannot be continued with this sampler, batch size or '
        'number of processes: the epoch is restarted.',
        'current',
        logging.WARNING,
    )
    return 0


def validation_is_due(runner: Runner) -> bool:
    """Whether mmengine's loops would validate at the current step of ``runner``."""
    loop = runner.train_loop
    if runner.val_loop is None or type(loop) not in (EpochBasedTrainLoop, IterBasedTrainLoop):
        return False
    by_epoch = type(loop) is EpochBasedTrainLoop
    now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    loop._decide_current_val_interval()
    return now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)


def check_loader(loader: DataLoader) -> None:
    """Check that an epoch has steps, and the same number on every process.

    Raises:
        UserError: it does not; raised on every process.
    """
    found = all_gather_object((len(loader.dataset), len(loader)))
    if len(set(found)) > 1:
        counts = '; '.join(f'process {rank}: {images} in {steps}' for rank, (images, steps) in enumerate(found))
        raise UserError(f'train_dataloader: the processes disagree on images or steps per epoch ({counts}).')
    images, steps = found[0]
    if steps == 0:
        size = getattr(loader.batch_sampler, 'batch_size', loader.batch_size)
        raise UserError(
            f'train_dataloader: {images} images do not fill a batch of {size}, and drop_last drops smaller ones: an '
            'epoch has no steps. Set a smaller batch_size, or drop_last=False.'
        )


_PROGRESS = ('last_step', '_global_step', '_last_value', 'verbose', 'base_values', 'param_name')
"""Of a scheduler's state: what changes in training, and what the optimiser's groups have as ``initial_lr``."""


def training_settings(runner: Runner) -> dict[str, Any]:
    """The settings of schedulers and optimiser, which a resumed checkpoint overwrites: by name, first value first."""
    found: dict[str, Any] = {}
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    for scheduler in schedulers:
        if not isinstance(scheduler, _ParamScheduler):  # a config: nothing is trained
            continue
        for key, value in scheduler.state_dict().items():
            if key not in _PROGRESS:
                value = sorted(value.elements()) if isinstance(value, Counter) else value
                found.setdefault(f'{type(scheduler).__name__}.{key}', []).append(value)
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    for group in optimizer.param_groups if isinstance(optimizer, Optimizer) else ():
        for key, value in group.items():
            if key not in ('params', 'lr'):
                values = found.setdefault(f'{type(optimizer).__name__}.{key.replace("initial_lr", "lr")}', [])
                if value not in values:
                    values.append(value)
    return found


def warn_of_other_settings(config: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    """Log what a checkpoint set otherwise than the config; arguments as :func:`training_settings` returns them."""
    changed = [name for name, value in checkpoint.items() if name in config and config[name] != value]
    if changed:
        said = ', '.join(f'{name} {_short(checkpoint[name])} (config: {_short(config[name])})' for name in changed)
        print_log(
            'The schedule and optimiser are those of the resumed checkpoint, which differ from the config: '
            f'{said}. To train with those of the config, start a new run with load_from.',
            'current',
            logging.WARNING,
        )


def _short(values: list) -> str:
    return ', '.join(f'{value:g}' if isinstance(value, float) else f'{value}' for value in values)
