"""The sampler that passes the epoch to the workers and can start in the middle; batches of images of one shape."""

from __future__ import annotations

import copy
import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tiny_files import write_model
from tiny_model import tiny_config
from torch.utils.data import Dataset

from mmcondetr.datasets.samplers import EpochIndex, EpochSampler, SameShapeBatchSampler
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


class Sized:
    """A data set that knows the (width, height) of its images."""

    def __init__(self, sizes, *steps) -> None:
        self.sizes, self.pipeline = sizes, Compose(list(steps))

    def __len__(self) -> int:
        return len(self.sizes)

    def get_data_info(self, index) -> dict:
        return dict(width=self.sizes[index][0], height=self.sizes[index][1])


class Given(list):
    """A sampler that gives these indices."""

    def __init__(self, indices, dataset) -> None:
        super().__init__(indices)
        self.dataset = dataset


SIZES = [(90, 60), (60, 90), (180, 120), (44, 40), (60, 90), (90, 60), (60, 90)]


@pytest.mark.parametrize(
    'steps, batch_size, expected',
    [
        ([], 2, [[0, 5], [2], [3], [1, 4], [6]]),
        ([dict(type='mmdet.Resize', scale=(45, 30), keep_ratio=True)], 2, [[0, 2], [5], [3], [1, 4], [6]]),
        ([dict(type='mmdet.Resize', scale=(45, 30), keep_ratio=False)], 4, [[0, 1, 2, 3], [4, 5, 6]]),
        ([dict(type='mmdet.Resize', scale_factor=0.5)], 9, [[0, 5], [2], [3], [1, 4, 6]]),
    ],
)
def test_a_batch_has_images_of_one_resized_shape(steps, batch_size, expected):
    init_default_scope('mmdet')
    batches = SameShapeBatchSampler(DefaultSampler(Sized(SIZES, *steps), shuffle=False), batch_size)
    assert list(batches) == list(batches) == expected and len(batches) == len(expected)


def test_what_a_process_is_given_last_stays_last():
    """mmengine drops it, where it is there to make all processes' numbers equal."""
    for order in ([0, 3, 1, 0], [1, 0, 3, 1, 4, 3], [2]):
        batches = list(SameShapeBatchSampler(Given(order, dataset=Sized(SIZES)), 2))
        assert batches[-1][-1] == order[-1] and sorted(sum(batches, [])) == sorted(order)


def test_no_images_are_no_batches():
    assert list(SameShapeBatchSampler(Given([], dataset=Sized([])), 2)) == []


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    """A tiny detector on images of four shapes: (batch size, batch sampler) -> scores by image."""
    from mmcondetr.inference.load_detector import load_detector

    folder = tmp_path_factory.mktemp('shapes-of-images')
    config, weights = write_model(folder, tiny_config())
    images = []
    for number, (width, height) in enumerate(SIZES):
        blocks = np.random.default_rng(number).integers(0, 255, (6, 9, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), cv2.resize(blocks, (width, height)))
        images.append(dict(id=number, file_name=f'{number}.png', width=width, height=height))
    names = Config.fromfile(config).test_dataloader.dataset.metainfo.classes
    categories = [dict(id=number, name=name) for number, name in enumerate(names)]
    (folder / 'annotations.json').write_text(json.dumps(dict(images=images, annotations=[], categories=categories)))
    model = load_detector(config, weights)

    def evaluate(batch_size, batch_sampler=None):
        loader = Config.fromfile(config).test_dataloader
        sampler = dict(type='mmengine.DefaultSampler', shuffle=False)
        loader.update(batch_size=batch_size, sampler=sampler, batch_sampler=batch_sampler, num_workers=0)
        found = {}
        with torch.no_grad():
            for data in Runner.build_dataloader(loader):
                for sample in model.test_step(data):
                    found[sample.img_id] = sample.pred_instances.scores
        return torch.stack([found[number] for number in range(len(SIZES))])

    return evaluate


def test_scores_in_batches_of_one_shape_are_those_of_batches_of_one(evaluated):
    alone = evaluated(1)
    together = evaluated(3, dict(type='mmcondetr.SameShapeBatchSampler'))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (evaluated(3) - alone).abs().max() > 1e-3, 'padded batches score the same: this would prove nothing'
