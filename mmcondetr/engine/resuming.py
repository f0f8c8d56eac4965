"""Going on in the middle of a data loader, without loading again what was trained on before."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, DataLoader, Sampler

from mmcondetr.errors import UserError


def drawing_sampler(loader: DataLoader) -> Sampler:
    """The sampler that draws indices; beside a batch sampler torch puts an idle one at ``loader.sampler``."""
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def skip_batches(loader: DataLoader, batches: int) -> bool:
    """Let the next pass over ``loader`` begin after so many batches; returns whether its sampler can do that."""
    sampler = drawing_sampler(loader)
    if type(loader.batch_sampler) is not BatchSampler or not hasattr(sampler, 'skip'):
        return False
    sampler.skip = batches * loader.batch_sampler.batch_size
    return True


class _AdvancedIterator:
    """Stands for mmengine's iterator in a loop that asks for the batches of ``iterations`` steps to throw them away."""

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
        if self._iterator is None:  # only now: hooks have set the sampler's epoch to the loop's, 0, in the meantime
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
    """Call after resuming and before ``run``, which throws away as many batches as the loop has done steps."""
    loop.dataloader_iterator = _AdvancedIterator(loop.dataloader, loop.iter)


def advance_epoch(loader: DataLoader, batches: int | None) -> int:
    """Begin the next pass over ``loader`` where an epoch was left; returns the number of batches that are left out.

    None stands for a number that does not fit, such as that of other processes. Then, and with a sampler that cannot
    begin in its middle, the epoch begins anew, and it is said.
    """
    if type(batches) is int and 0 < batches < len(loader) and skip_batches(loader, batches):
        return batches
    print_log(
        'The checkpoint is from the middle of an epoch, in which this sampler, batch or number of processes cannot go '
        'on: the epoch begins anew.',
        'current',
        logging.WARNING,
    )
    return 0


def validation_is_due(runner: Runner) -> bool:
    """Whether mmengine's loops would validate where ``runner`` stands now."""
    loop = runner.train_loop
    if runner.val_loop is None or type(loop) not in (EpochBasedTrainLoop, IterBasedTrainLoop):
        return False
    by_epoch = type(loop) is EpochBasedTrainLoop
    now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    loop._decide_current_val_interval()
    return now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)


def check_loader(loader: DataLoader) -> None:
    """Look whether an epoch has steps, and as many on every process.

    Raises:
        UserError: it has not; on every process.
    """
    found = all_gather_object((len(loader.dataset), len(loader)))
    if len(set(found)) > 1:
        told = '; '.join(f'process {rank}: {images} in {steps}' for rank, (images, steps) in enumerate(found))
        raise UserError(f'train_dataloader: the processes disagree on images or steps per epoch ({told}).')
    images, steps = found[0]
    if steps == 0:
        size = getattr(loader.batch_sampler, 'batch_size', loader.batch_size)
        raise UserError(
            f'train_dataloader: {images} images are no batch of {size}, and drop_last leaves out what is smaller: an '
            'epoch has no step. Set a smaller batch_size, or drop_last=False.'
        )
