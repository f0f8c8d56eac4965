"""A sampler whose indices carry the epoch, so that a data set can make augmentation depend on (seed, epoch, index).

Otherwise a worker's generators depend on the number of workers and on what they did before, which no checkpoint can
record. The sampler can also start in the middle, so that resuming does not reload what was trained on already.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sized

from mmengine.dataset import DefaultSampler

from mmcondetr.registry import DATA_SAMPLERS


class EpochIndex(int):
    """An index into a data set that remembers its seed, its epoch and the index that the sampler drew.

    Subtraction and remainder keep these, so they survive ConcatDataset and RepeatDataset.
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
    """mmengine's DefaultSampler (order by seed and epoch), yielding :class:`EpochIndex`; for both training loops.

    Set ``skip`` to a number of samples to leave out of the next pass.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None, round_up: bool = True) -> None:
        super().__init__(dataset, shuffle, seed, round_up)
        self.skip = 0

    def __iter__(self) -> Iterator[EpochIndex]:
        skip, self.skip = self.skip, 0
        for index in itertools.islice(super().__iter__(), skip, None):
            yield EpochIndex(index, self.seed, self.epoch, index)
