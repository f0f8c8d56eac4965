"""Panoptic data: every segment an instance; what does not fit is one clear error before training."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from panoptic_files import CLASSES, edit_json, panoptic_dataset, write_panoptic_shapes
from torch.utils.data import DataLoader

from mmcondetr.datasets.panoptic_png import read_panoptic_png, write_panoptic_png
from mmcondetr.datasets.samplers import EpochIndex
from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


@pytest.fixture
def root(tmp_path):
    return write_panoptic_shapes(tmp_path / 'shapes')


def test_png_keeps_ids_of_three_bytes(tmp_path):
    ids = np.array([[0, 1, 255], [256, 65536, 2**24 - 1]])
    write_panoptic_png(tmp_path / 'a' / 'b.png', ids)
    assert (read_panoptic_png(str(tmp_path / 'a' / 'b.png'), 'field') == ids).all()
    blue, green, red = cv2.imread(str(tmp_path / 'a' / 'b.png'))[1, 0]
    assert (red, green, blue) == (0, 1, 0), "COCO's order: R + 256 G + 65536 B"


def test_every_segment_is_an_instance_with_class_box_and_mask(root):
    dataset = DATASETS.build(panoptic_dataset(root))
    listed = json.loads((root / 'annotations/panoptic_val.json').read_text())
    assert len(dataset) == 4 and dataset.metainfo['classes'] == CLASSES
    for index in range(4):
        item = dataset[index]
        segments = listed['annotations'][index]['segments_info']
        assert item['gt_bboxes_labels'].tolist() == [segment['category_id'] - 1 for segment in segments]
        masks = item['gt_masks'].masks
        assert masks.sum(axis=(1, 2)).tolist() == [segment['area'] for segment in segments]
        assert (masks.sum(axis=0) == 1).all(), 'the segments of shapes cover the image, each pixel once'
        x, y, width, height = np.array([segment['bbox'] for segment in segments]).T
        assert (item['gt_bboxes'].tensor.numpy() == np.stack([x, y, x + width, y + height], axis=1)).all()


def test_an_item_depends_on_seed_epoch_and_index(root):
    config = panoptic_dataset(root)
    config['pipeline'].append(dict(type='mmdet.RandomFlip', prob=0.5))
    dataset = DATASETS.build(config)
    flips = [[dataset[EpochIndex(0, 3, epoch, 0)]['flip'] for epoch in range(12)] for _ in range(2)]
    assert flips[0] == flips[1] and len(set(flips[0])) == 2


def change_first_segment(**changes):
    return lambda data: data['annotations'][0]['segments_info'][0].update(changes)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (change_first_segment(id=77), r'disagree. Ids in the PNG only: 123457. In the JSON only: 77'),
        (change_first_segment(category_id=99), 'category_id 99 of segment 123457 is not in categories'),
        (change_first_segment(id=246914), r'segments_info of image 1: id .* repeated: 246914'),
        (
            lambda data: data['annotations'][0]['segments_info'][0].pop('iscrowd'),
            r"missing required field 'iscrowd', at '\$.annotations\[0\].segments_info\[0\]'",
        ),
        (
            lambda data: data['annotations'][1].pop('segments_info'),
            r"missing required field 'segments_info', at '\$.annotations\[1\]'",
        ),
        (
            lambda data: data['categories'][0].pop('isthing'),
            r"missing required field 'isthing', at '\$.categories\[0\]'",
        ),
        (lambda data: data['categories'][8].update(name='sea'), 'Not in the file: sand. In the file only: sea'),
        (lambda data: data['images'][2].update(width=65), r"000002.png' .* is 64x64 pixels, but .* says 65x64"),
        (lambda data: data['annotations'][3].update(file_name='x.png'), r"panoptic_val/x.png.*data_prefix\['seg'\]"),
        (
            lambda data: data['annotations'].append(data['annotations'][0]),
            'image_id of annotations must appear once; repeated: 1',
        ),
        (
            lambda data: data['images'].pop(1),
            'image_id of annotations must be the id of one of images, but 1 of 4 are not: 2',
        ),
    ],
)
def test_what_does_not_fit_is_named_before_training(root, change, message):
    edit_json(root / 'annotations/panoptic_val.json', change)
    with pytest.raises(UserError, match=message):
        DATASETS.build(panoptic_dataset(root))


def test_ids_of_later_images_are_compared_when_they_are_loaded(root, monkeypatch):
    monkeypatch.setattr('mmcondetr.datasets.coco_panoptic._DECODED', 1)
    edit_json(
        root / 'annotations/panoptic_val.json', lambda data: data['annotations'][2]['segments_info'][0].update(id=77)
    )
    dataset = DATASETS.build(panoptic_dataset(root))
    assert len(dataset[1]['gt_masks'].masks) > 0
    message = r"000002.png' \(.*segments_info of image 3 .* disagree. Ids in the PNG only: 123457. In the JSON only: 77"
    with pytest.raises(UserError, match=message):
        dataset[2]
    loader = DataLoader(dataset, sampler=[2], num_workers=1)
    with pytest.raises(UserError, match=message) as raised:  # from the worker, as in training
        next(iter(loader))
    assert len(str(raised.value).splitlines()) == 1


def test_a_png_that_is_none(root):
    (root / 'panoptic_val/000001.png').write_bytes(b'nothing')
    with pytest.raises(UserError, match=r"000001.png' \(.*data_prefix\['seg'\]\) must be a PNG with three channels"):
        DATASETS.build(panoptic_dataset(root))
    (root / 'panoptic_val/000001.png').write_bytes(b'GIF89a' + b'\xff' * 100)
    with pytest.raises(UserError, match='must be a PNG .*; it says that it is 65535x65535 pixels, and more than'):
        DATASETS.build(panoptic_dataset(root))


def test_images_without_annotation_are_left_out_with_a_warning(root):
    edit_json(root / 'annotations/panoptic_val.json', lambda data: data['annotations'].pop())
    with pytest.warns(UserWarning, match='1 images have no panoptic annotation'):
        assert len(DATASETS.build(panoptic_dataset(root))) == 3


def test_classes_that_are_left_out_are_void_and_things_are_the_files(root):
    kept = tuple(name for name in CLASSES if name not in ('star', 'sand'))
    with pytest.warns(UserWarning, match='that are not in .* are void: star, sand'):
        dataset = DATASETS.build({**panoptic_dataset(root), 'metainfo': dict(classes=kept)})
    assert dataset.metainfo['thing_classes'] == kept[:5] and dataset.metainfo['stuff_classes'] == kept[5:]
    whole = DATASETS.build(panoptic_dataset(root))
    names = lambda each, item: [each.metainfo['classes'][label] for label in item['gt_bboxes_labels']]  # noqa: E731
    given = [names(whole, item) for item in whole]
    assert [names(dataset, item) for item in dataset] == [[name for name in one if name in kept] for one in given]
    assert any('star' in one for one in given) and any('sand' in one for one in given)
