"""Masks that are trained but not loaded, or measured but not there, are told before anything is built."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import EpochBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop
from panoptic_files import METAINFO, panoptic_dataset, write_panoptic_shapes

from mmcondetr.engine.check_classes_hook import CheckClassesHook
from mmcondetr.engine.check_masks import check_measured_masks, check_things, check_trained_masks
from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS

BOXES = dict(type='mmdet.LoadAnnotations', with_bbox=True)
MASKS, PANOPTIC = dict(BOXES, with_mask=True), dict(type='mmcondetr.LoadPanoptic')
FROZEN = dict(type='mmcondetr.MaskHead', freeze_detector=True)


def config_of(mask_head=None, step=BOXES, **more) -> Config:
    dataset = dict(type='mmdet.RepeatDataset', times=2, dataset=dict(type='mmcondetr.CocoDataset', pipeline=[step]))
    model = dict(type='mmcondetr.ConditionalDETR', mask_head=mask_head)
    return Config(dict(model=model, train_dataloader=dict(dataset=dataset), **more))


def saving(best) -> dict:
    return dict(default_hooks=dict(checkpoint=dict(save_best=best)))


@pytest.mark.parametrize(
    'config',
    [
        config_of(),
        config_of(FROZEN, MASKS),
        config_of(FROZEN, PANOPTIC),
        config_of(FROZEN, MASKS, **saving('coco/segm_mAP')),
        config_of(dict(type='mmcondetr.MaskHead'), MASKS, **saving('coco/bbox_mAP')),
        Config(dict(model=dict(mask_head=FROZEN))),
    ],
)
def test_masks_that_are_loaded_may_be_trained(config):
    check_trained_masks(config)


def test_masks_that_are_not_loaded_are_not_trained():
    message = r'train_dataloader\.dataset\.pipeline: model\.mask_head .*with_mask=True'
    with pytest.raises(UserError, match=message):
        check_trained_masks(config_of(dict(type='mmcondetr.MaskHead')))


@pytest.mark.parametrize('best', ['coco/bbox_mAP', ['coco/segm_mAP', 'coco/bbox_mAP_50']])
def test_the_best_of_frozen_boxes_is_the_first(best):
    with pytest.raises(UserError, match=r"save_best='coco/bbox_mAP.*write 'coco/segm_mAP'"):
        check_trained_masks(config_of(FROZEN, MASKS, **saving(best)))


MERGING = dict(type='mmcondetr.MaskHead', panoptic=dict(num_classes=9, num_things=6))
SEGM = dict(type='mmcondetr.CocoMetric', metric=['bbox', 'segm'])
QUALITY = dict(type='mmcondetr.CocoPanopticMetric')


@pytest.mark.parametrize('given', [SEGM, [QUALITY, dict(SEGM, metric='segm')], dict(SEGM, metric='bbox'), []])
def test_what_a_model_makes_may_be_measured(given):
    check_measured_masks(config_of(MERGING, val_evaluator=given, test_evaluator=given))


@pytest.mark.parametrize(
    'mask_head, given, message',
    [
        (None, SEGM, r"val_evaluator\.metric=\['bbox', 'segm'\]: .* the model has none \(model\.mask_head\)"),
        (None, dict(SEGM, metric='segm'), r"val_evaluator\.metric='segm'"),
        (FROZEN, [SEGM, QUALITY], r'val_evaluator: panoptic quality .* model\.mask_head\.panoptic=dict'),
        (None, QUALITY, r'val_evaluator: panoptic quality'),
    ],
)
def test_what_a_model_does_not_make_is_not_measured(mask_head, given, message):
    with pytest.raises(UserError, match=message):
        check_measured_masks(config_of(mask_head, val_evaluator=given))
    other = config_of(mask_head, val_evaluator=given)
    other.model.type = 'mmdet.MaskRCNN'
    check_measured_masks(other)


def test_things_are_counted(tmp_path):
    init_default_scope('mmdet')
    dataset = DATASETS.build(panoptic_dataset(write_panoptic_shapes(tmp_path)))
    check_things(6, dataset, 'train_dataloader')
    with pytest.raises(UserError, match=r'num_things=7, but train_dataloader\.dataset has 6 .*num_things=6'):
        check_things(7, dataset, 'train_dataloader')
    check_things(7, SimpleNamespace(metainfo=METAINFO), 'a data set of another kind')
    merging = SimpleNamespace(panoptic=SimpleNamespace(num_things=7))
    model = SimpleNamespace(bbox_head=SimpleNamespace(num_classes=9), mask_head=merging)
    loop = BaseLoop.__new__(EpochBasedTrainLoop)
    loop.dataloader = SimpleNamespace(dataset=dataset)
    runner = SimpleNamespace(model=model, _train_loop=loop, _val_loop=None, _test_loop=None)
    with pytest.raises(UserError, match='num_things=7, but train_dataloader'):
        CheckClassesHook().before_run(runner)
    merging.panoptic.num_things = 6
    CheckClassesHook().before_run(runner)
