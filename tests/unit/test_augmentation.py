"""The samples of mmcondetr check show what is trained: boxes, and masks where the data set loads them."""

import json

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from own_data_files import make_shapes
from pycocotools import mask as rle

from mmcondetr.analysis.augmentation import draw_samples
from mmcondetr.datasets.shapes import SHAPES_CLASSES
from mmcondetr.registry import DATASETS


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('samples') / 'shapes', num_train=3, num_val=1, image_size=128)


def samples(root, with_mask: bool) -> list[np.ndarray]:
    """Each image and a mirrored version of it, with what is drawn on them."""
    init_default_scope('mmdet')
    pipeline = [
        dict(type='mmcondetr.LoadImage'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=with_mask),
        dict(type='mmdet.RandomFlip', prob=1.0),
        dict(type='mmdet.PackDetInputs'),
    ]
    dataset = DATASETS.build(
        dict(
            type='mmcondetr.CocoDataset',
            data_root=f'{root}/',
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=SHAPES_CLASSES),
            pipeline=pipeline,
        )
    )
    return [np.asarray(picture) for picture, _ in draw_samples(dataset, 3, times=1)]


def test_masks_are_drawn_where_they_are_trained(shapes):
    content = json.loads((shapes / 'annotations' / 'train.json').read_text())
    covered = {image['id']: np.zeros((128, 128), bool) for image in content['images']}
    for entry in content['annotations']:
        covered[entry['image_id']] |= rle.decode(entry['segmentation']).astype(bool)
    plain, masked = samples(shapes, False), samples(shapes, True)
    expected = [where[:, ::step] for where in covered.values() for step in (1, -1)]
    assert len(plain) == len(masked) == len(expected) == 6
    for before, after, where in zip(plain, masked, expected):
        painted = (before != after).any(axis=2)
        assert not painted[~where].any()
        assert where.mean() > 0.01 and painted[where].mean() > 0.5  # the rest is below boxes and names
