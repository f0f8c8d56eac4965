"""Samplers: one whose indices carry the epoch, for training; and batches of images of one shape, for evaluation.

With the epoch, a data set can make augmentation depend on (seed, epoch, index). Otherwise a worker's generators depend
on the number of workers and on what they did before, which no checkpoint can record. The sampler can also start in the
middle, so that resuming does not reload what was trained on already.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sized

from mmcv.image import rescale_size
from mmcv.transforms import Resize
from mmengine.dataset import BaseDataset, DefaultSampler

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


@DATA_SAMPLERS.register_module()
class SameShapeBatchSampler:
    """Batches of images that the pipeline resizes to one shape, so that none is padded to the size of another.

    For evaluation: images are reordered, grouped by shape. The shape is computed from the annotated width and height
    by the pipeline's steps, without reading files.

    Args:
        sampler: of indices into ``sampler.dataset``.
        batch_size: maximum number of images per batch.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        dataset: BaseDataset = sampler.dataset
        pipeline = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
        resizing = [step for step in pipeline if isinstance(step, Resize) and step.scale is not None]
        groups: dict[tuple[int, int], list[int]] = {}
        shape = (0, 0)
        for index in sampler:
            info = dataset.get_data_info(index)
            shape = info['width'], info['height']
            for step in resizing:
                shape = rescale_size(shape, tuple(step.scale)) if step.keep_ratio else tuple(step.scale)
            groups.setdefault(shape, []).append(index)
        if groups:
            # With several processes, mmengine drops the result of the last image of some of them, which was added to
            # make their numbers equal: it must stay last.
            groups[shape] = groups.pop(shape)
        self._batches = [
            group[first : first + batch_size] for group in groups.values() for first in range(0, len(group), batch_size)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
