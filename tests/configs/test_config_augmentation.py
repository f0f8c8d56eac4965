"""The COCO configs augment as the authors do; where mmdet's DETR differs, the difference is shown."""

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from mmengine.registry import init_default_scope


@pytest.fixture(scope='module')
def config(load_config, root):
    init_default_scope('mmdet')
    return load_config(root / 'configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py')


@pytest.fixture(scope='module')
def branches(config):
    """(resize) and (resize, crop, resize), built."""
    choice = next(step for step in config.train_dataloader.dataset.pipeline if step['type'] == 'mmcv.RandomChoice')
    return [[TRANSFORMS.build(step) for step in branch] for branch in choice['transforms']]


def image(width, height):
    boxes = np.array([[0, 0, width / 3, height]], dtype=np.float32)  # x1, y1, x2, y2 in pixels: the left third
    return dict(
        img=np.zeros((height, width, 3), np.uint8),
        img_shape=(height, width),
        gt_bboxes=boxes,
        gt_bboxes_labels=np.array([3]),
        gt_ignore_flags=np.array([False]),
    )


def test_scales_are_the_authors(config, branches):
    (whole,), (before, _, after) = branches
    sides = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
    assert whole.scales == after.scales == [(side, 1333) for side in sides]
    assert [side for side, _ in before.scales] == [400, 500, 600]


def test_panorama_is_not_capped_before_the_crop(branches):
    before, crop, _ = branches[1]
    np.random.seed(0)
    resized = before.transform(image(2000, 250))
    assert min(resized['img_shape']) in (400, 500, 600)  # mmdet's cap of 1333 would leave 167
    cropped = [crop.transform(before.transform(image(2000, 250)))['img_shape'] for _ in range(20)]
    assert all(384 <= side <= 600 for shape in cropped for side in shape)


def test_crop_without_a_box_is_kept(branches):
    before, crop, _ = branches[1]
    np.random.seed(0)
    counts = [len(crop.transform(before.transform(image(1000, 400)))['gt_bboxes_labels']) for _ in range(20)]
    assert 0 in counts and 1 in counts


def test_test_images_are_resized_to_800_by_1333(config):
    resize = TRANSFORMS.build(config.test_dataloader.dataset.pipeline[1])
    assert resize.transform(image(640, 480))['img_shape'] == (800, 1067)
    assert resize.transform(image(2000, 500))['img_shape'] == (333, 1333)


def test_images_without_ground_truth_are_trained_on(config):
    assert config.train_dataloader.dataset.filter_cfg is None
    assert config.train_dataloader.batch_sampler is None  # images are not grouped by aspect ratio
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.type == 'mmcondetr.CocoDataset'
        assert loader.dataset.pipeline[0].type == 'mmcondetr.LoadImage'
