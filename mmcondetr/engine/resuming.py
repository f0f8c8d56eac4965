"""Going on in the middle of a data loader, without loading again what was trained on before."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, DataLoader, Sampler


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
