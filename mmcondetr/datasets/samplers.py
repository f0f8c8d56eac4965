"""Samplers whose indices carry the epoch, so that a data set can make augmentation depend on (seed, epoch, index).

A worker's generators otherwise depend on how many workers there are and on what they did before, which no checkpoint
can hold. Both samplers can also begin in the middle, so that resuming does not load what has been trained on already.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sized

import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler as MMDetAspectRatioBatchSampler
from mmengine.dataset import DefaultSampler, InfiniteSampler

from mmcondetr.registry import DATA_SAMPLERS


class EpochIndex(int):
    """An index into a data set that remembers its seed, its epoch and the index that the sampler drew.

    Subtracting and taking the remainder keep these, so they survive ConcatDataset and RepeatDataset.
    """

    seed: int
    epoch: int
    drawn: int

    def __new__(cls, value: int, seed: int, epoch: int, drawn: int) -> EpochIndex:
        index = super().__new__(cls, value)
        index.seed, index.epoch, index.drawn = seed, epoch, drawn
        return index

    def __getnewargs__(self) -> tuple[int, int, int, int]:
        return int(self), self.seed, self.epoch, self.drawn

    def __sub__(self, other: int) -> EpochIndex:
        return EpochIndex(int(self) - other, self.seed, self.epoch, self.drawn)

    def __mod__(self, other: int) -> EpochIndex:
        return EpochIndex(int(self) % other, self.seed, self.epoch, self.drawn)


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """mmengine's DefaultSampler (order by seed and epoch), yielding :class:`EpochIndex`.

    Set ``skip`` to a number of samples to leave out of the next pass.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None, round_up: bool = True) -> None:
        super().__init__(dataset, shuffle, seed, round_up)
        self.skip = 0

    def __iter__(self) -> Iterator[EpochIndex]:
        skip, self.skip = self.skip, 0
        for index in itertools.islice(super().__iter__(), skip, None):
            yield EpochIndex(index, self.seed, self.epoch, index)


@DATA_SAMPLERS.register_module()
class InfiniteEpochSampler(InfiniteSampler):
    """Passes over the data set without end, for IterBasedTrainLoop; order by (seed, number of the pass).

    Set ``skip`` to the number of samples of this rank to leave out at the beginning.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle, seed)
        self.skip = 0

    def _draw(self, first_epoch: int) -> Iterator[EpochIndex]:
        for epoch in itertools.count(first_epoch):
            generator = torch.Generator()
            generator.manual_seed(self.seed + epoch)
            order = torch.randperm(self.size, generator=generator) if self.shuffle else torch.arange(self.size)
            for index in order.tolist():
                yield EpochIndex(index, self.seed, epoch, index)

    def __iter__(self) -> Iterator[EpochIndex]:
        epoch, start = divmod(self.skip * self.world_size + self.rank, self.size)
        self.skip = 0
        return itertools.islice(self._draw(epoch), start, None, self.world_size)


@DATA_SAMPLERS.register_module()
class AspectRatioBatchSampler(MMDetAspectRatioBatchSampler):
    """mmdet's, beginning each pass with empty groups, also after a pass that was broken off.

    Set ``skip`` to a number of batches to leave out of the next pass.
    """

    skip = 0

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        self._aspect_ratio_buckets = [[], []]
        return itertools.islice(super().__iter__(), skip, None)
