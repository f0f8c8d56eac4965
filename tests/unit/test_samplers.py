"""Samplers that carry the epoch to the workers and can begin in the middle."""

from __future__ import annotations

import copy
import pickle

import pytest
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmcondetr.datasets.samplers import AspectRatioBatchSampler, EpochIndex, EpochSampler, InfiniteEpochSampler
from mmcondetr.engine.resuming import _AdvancedIterator, drawing_sampler, skip_batches


class Indices(Dataset):
    """Item i is the index it was asked for; even ones are landscape, odd ones portrait."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index) -> tuple:
        return int(index), getattr(index, 'epoch', None), getattr(index, 'drawn', None)

    def get_data_info(self, index: int) -> dict:
        return dict(width=20 if index % 2 else 40, height=30)


def keep(items: list) -> list:
    """The collate function that changes nothing."""
    return items


def make_loader(sampler: str, batch_sampler: str | None = None, workers: int = 0):
    init_default_scope('mmdet')
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=workers,
            dataset=Indices(),
            collate_fn=dict(type='default_collate'),
            sampler=dict(type=f'mmcondetr.{sampler}', shuffle=True),
            batch_sampler=None if batch_sampler is None else dict(type=f'mmcondetr.{batch_sampler}'),
        ),
        seed=3,
    )
    loader.collate_fn = keep
    return loader


@pytest.mark.parametrize(
    'copied',
    [
        pickle.loads(pickle.dumps(EpochIndex(5, 1, 2, 3))),
        copy.copy(EpochIndex(5, 1, 2, 3)),
        EpochIndex(8, 1, 2, 3) - 3,
        EpochIndex(15, 1, 2, 3) % 10,
    ],
)
def test_an_index_keeps_what_it_carries(copied):
    assert copied == 5 and (copied.seed, copied.epoch, copied.drawn) == (1, 2, 3)


def test_order_depends_on_seed_and_epoch():
    sampler = EpochSampler(Indices(), seed=7)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first == again != second and sorted(first) == sorted(second) == list(range(11))
    assert {index.epoch for index in second} == {1} and list(EpochSampler(Indices(), seed=8)) != first
    assert all(index.drawn == index for index in second)


def test_the_infinite_sampler_passes_over_everything_in_turn():
    drawn = iter(InfiniteEpochSampler(Indices(), seed=7))
    passes = [[next(drawn) for _ in range(11)] for _ in range(3)]
    assert all(sorted(one) == list(range(11)) for one in passes) and passes[0] != passes[1] != passes[2]
    assert [one[0].epoch for one in passes] == [0, 1, 2]


@pytest.mark.parametrize('kind', [EpochSampler, InfiniteEpochSampler])
@pytest.mark.parametrize('skip', [1, 10])
def test_skipping_samples(kind, skip):
    whole, late = kind(Indices(), seed=7), kind(Indices(), seed=7)
    late.skip = skip
    for (index, expected), _ in zip(zip(iter(late), list(zip(range(40), whole))[skip:]), range(5)):
        assert index == expected[1] and index.epoch == expected[1].epoch
    assert late.skip == 0, 'only the next pass is shortened'


def test_skipping_on_several_ranks():
    whole = [InfiniteEpochSampler(Indices(), seed=7) for _ in range(2)]
    for rank, sampler in enumerate(whole):
        sampler.rank, sampler.world_size = rank, 2
    late = InfiniteEpochSampler(Indices(), seed=7)
    late.rank, late.world_size, late.skip = 1, 2, 9
    expected = [index for _, index in zip(range(15), whole[1])][9:]
    assert [index for _, index in zip(range(6), late)] == expected


def test_a_broken_off_pass_leaves_nothing_in_the_groups():
    sampler = AspectRatioBatchSampler(EpochSampler(Indices(), seed=7), batch_size=2)
    whole = list(sampler)
    broken = iter(sampler)
    next(broken)
    assert list(sampler) == whole and sorted(sum(whole, [])) == list(range(11))
    sampler.skip = 2
    assert list(sampler) == whole[2:] and list(sampler) == whole


@pytest.mark.parametrize('sampler', ['EpochSampler', 'InfiniteEpochSampler'])
@pytest.mark.parametrize('batch_sampler', [None, 'AspectRatioBatchSampler'])
@pytest.mark.parametrize('done', [4, 8])
def test_an_advanced_iterator_goes_on_where_the_other_was(monkeypatch, sampler, batch_sampler, done):
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    from mmengine.runner.loops import _InfiniteDataloaderIterator

    whole = _InfiniteDataloaderIterator(make_loader(sampler, batch_sampler))
    expected = [next(whole) for _ in range(done + 5)][done:]
    loader = make_loader(sampler, batch_sampler)
    loaded = []
    monkeypatch.setattr(
        Indices,
        '__getitem__',
        lambda self, index, real=Indices.__getitem__: (loaded.append(index), real(self, index))[1],
    )
    advanced = _AdvancedIterator(loader, done)
    drawing_sampler(loader).set_epoch(0)  # as mmengine's DistSamplerSeedHook does when the loop begins
    assert [next(advanced) for _ in range(done)] == [None] * done
    assert loaded == [], 'nothing is loaded to be thrown away'
    assert [next(advanced) for _ in range(5)] == expected


def test_samplers_that_cannot_skip_are_told_apart():
    init_default_scope('mmdet')
    loader = Runner.build_dataloader(
        dict(
            batch_size=2, num_workers=0, dataset=Indices(), sampler=dict(type='mmengine.DefaultSampler', shuffle=False)
        ),
        seed=3,
    )
    loader.collate_fn = keep
    assert not skip_batches(loader, 2)
    advanced = _AdvancedIterator(loader, 2)
    assert [next(advanced) for _ in range(3)][2] == [(4, None, None), (5, None, None)], 'loads what it throws away'
