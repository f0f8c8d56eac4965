"""The sampler that passes the epoch to the workers and can start in the middle."""

from __future__ import annotations

import copy
import pickle

import pytest
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmcondetr.datasets.samplers import EpochIndex, EpochSampler
from mmcondetr.engine.resuming import _AdvancedIterator, drawing_sampler, skip_batches


class Indices(Dataset):
    """Item i is the index it was asked for."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index) -> tuple:
        return int(index), getattr(index, 'epoch', None), getattr(index, 'drawn', None)


def keep(items: list) -> list:
    """The collate function that changes nothing."""
    return items


def make_loader():
    init_default_scope('mmdet')
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=0,
            dataset=Indices(),
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='mmcondetr.EpochSampler', shuffle=True),
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


@pytest.mark.parametrize('skip', [1, 10])
def test_skipping_samples(skip):
    whole, late = EpochSampler(Indices(), seed=7), EpochSampler(Indices(), seed=7)
    late.skip = skip
    for (index, expected), _ in zip(zip(iter(late), list(zip(range(40), whole))[skip:]), range(5)):
        assert index == expected[1] and index.epoch == expected[1].epoch
    assert late.skip == 0, 'only the next pass is shortened'


@pytest.mark.parametrize('done', [4, 8])
def test_an_advanced_iterator_goes_on_where_the_other_was(monkeypatch, done):
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    from mmengine.runner.loops import _InfiniteDataloaderIterator

    whole = _InfiniteDataloaderIterator(make_loader())
    expected = [next(whole) for _ in range(done + 5)][done:]
    loader = make_loader()
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
