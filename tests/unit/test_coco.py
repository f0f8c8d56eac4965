"""COCO annotations and image files: one clear error each, before training starts where it can be."""

from __future__ import annotations

import json

import cv2
import mmdet.datasets  # noqa: F401  (registers LoadAnnotations and PackDetInputs)
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS

PIPELINE = [
    dict(type='mmcondetr.LoadImage'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.RandomCrop', crop_type='absolute_range', crop_size=(16, 30), allow_negative_crop=True),
    dict(type='mmdet.PackDetInputs'),
]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


@pytest.fixture
def data():
    """Three images of 40 x 30 pixels, the last without a box; classes cat and dog."""
    return dict(
        images=[dict(id=10 + index, file_name=f'{index}.png', width=40, height=30) for index in range(3)],
        annotations=[
            dict(id=1, image_id=10, category_id=7, bbox=[1, 2, 10, 12], area=120, iscrowd=0),
            dict(id=2, image_id=10, category_id=3, bbox=[20, 5, 30, 10], area=300, iscrowd=0),
            dict(id=3, image_id=11, category_id=3, bbox=[0, 0, 5, 5], area=25, iscrowd=1),
        ],
        categories=[dict(id=3, name='cat'), dict(id=7, name='dog')],
    )


@pytest.fixture
def build(tmp_path, data):
    """Write ``data`` and its images, and build the data set."""
    rng = np.random.default_rng(0)
    for image in data['images']:
        cv2.imwrite(str(tmp_path / image['file_name']), rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))

    def build_dataset(**changes):
        (tmp_path / 'annotations.json').write_text(json.dumps(data))
        arguments = dict(
            type='mmcondetr.CocoDataset',
            data_root=str(tmp_path),
            ann_file='annotations.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=('cat', 'dog')),
            pipeline=PIPELINE,
        )
        return DATASETS.build(dict(arguments, **changes))

    return build_dataset


def test_boxes_labels_and_crowds(build):
    with pytest.warns(UserWarning) as found:
        dataset = build()
    assert len(found) == 1 and '1 boxes extend beyond their image by more than a pixel' in str(found[0].message)
    assert type(dataset).__module__ == 'mmcondetr.datasets.coco'
    assert len(dataset) == 3, 'images without a box are kept'
    first, second, third = (dataset.get_data_info(index)['instances'] for index in range(3))
    assert [(instance['bbox'], instance['bbox_label']) for instance in first] == [
        ([1, 2, 11, 14], 1),
        ([20, 5, 40, 15], 0),
    ], 'clipped to the image'
    assert [instance['ignore_flag'] for instance in second] == [1] and third == []


def test_a_box_thinner_than_a_pixel_is_kept_as_the_authors_do(build, data):
    data['annotations'][0].update(bbox=[5, 5, 0.5, 8])
    assert build().get_data_info(0)['instances'][0]['bbox'] == [5, 5, 5.5, 13]


def test_boxes_outside_or_without_area_are_counted_and_left_out(build, data):
    boxes = [50, 5, 10, 10], [5, 5, 0, 10], [5, 5, 10, -3], [-9, -9, 9, 9], [5, 5, float('nan'), 2]
    for number, box in enumerate(boxes):
        data['annotations'].append(dict(id=100 + number, image_id=11, category_id=3, bbox=box, area=10, iscrowd=0))
    with pytest.warns(UserWarning, match=r'5 boxes lie outside .* \(annotation ids 100, 101, 102, 103, 104\)') as found:
        dataset = build()
    assert len([warning for warning in found if 'boxes lie outside' in str(warning.message)]) == 1
    assert len(dataset.get_data_info(1)['instances']) == 1


def test_missing_annotation_file(build):
    with pytest.raises(UserError, match="absent.json' does not exist. It comes from train_dataloader.dataset.ann"):
        build(ann_file='absent.json')
    with pytest.raises(UserError, match='val_dataloader/test_dataloader.dataset.ann_file'):
        build(ann_file='absent.json', test_mode=True)


def test_truncated_annotation_file(build, tmp_path, data):
    (tmp_path / 'cut.json').write_text(json.dumps(data)[:200])
    with pytest.raises(UserError, match=r'cut.json.*train_dataloader.*is truncated, or not JSON: .* at line 1, column'):
        build(ann_file='cut.json')


@pytest.mark.parametrize('content', ['[]', '{"images": [], "shapes": []}'])
def test_other_json(build, tmp_path, content):
    (tmp_path / 'other.json').write_text(content)
    with pytest.raises(UserError, match='is not in COCO format: .* images, annotations, categories'):
        build(ann_file='other.json')


def test_missing_fields_are_named(build, data):
    del data['annotations'][1]['bbox']
    with pytest.raises(UserError, match=r"at \$.annotations\[1\]: lacks 'bbox'"):
        build()


def test_repeated_ids_are_named(build, data):
    data['annotations'][2]['id'] = 1
    with pytest.raises(UserError, match='ids in annotations repeat: 1'):
        build()


def test_no_images(build, data):
    data['images'].clear()
    with pytest.raises(UserError, match='lists no images'):
        build()


def test_classes_that_the_file_does_not_have(build):
    message = (
        r"Not in the file: horse. In the file only: dog. .*metainfo=dict\(classes=\('cat', 'dog'\)\), and "
        r'model.bbox_head.num_classes=2'
    )
    with pytest.raises(UserError, match=message):
        build(metainfo=dict(classes=('cat', 'horse')))


def test_without_metainfo_the_line_to_write_is_given(build):
    with pytest.raises(UserError, match=r"metainfo=dict\(classes=\('cat', 'dog'\)\)"):
        build(metainfo=None)


def test_classes_in_another_order(build):
    with pytest.raises(UserError, match=r"in another order.*Write metainfo=dict\(classes=\('cat', 'dog'\)\)"):
        build(metainfo=dict(classes=('dog', 'cat')))


def test_one_class_as_a_string(build):
    with pytest.raises(UserError, match=r"not the string 'cat': write metainfo=dict\(classes=\('cat',\)\)"):
        build(metainfo=dict(classes='cat'))


def test_a_subset_of_the_classes_warns(build):
    with pytest.warns(UserWarning, match='left out: cat'):
        dataset = build(metainfo=dict(classes=('dog',)))
    assert [instance['bbox_label'] for instance in dataset.get_data_info(0)['instances']] == [0]


def test_missing_images_are_found_at_the_start(build, tmp_path):
    (tmp_path / '1.png').unlink()
    with pytest.raises(UserError, match=r"1 of 3 image files of '.*annotations.json' do not exist: .*1.png"):
        build()


def test_missing_image_while_loading(build, tmp_path):
    dataset = build(check_images=False)
    (tmp_path / '1.png').unlink()
    with pytest.raises(UserError, match=r"Image file '.*1.png' \(listed in '.*annotations.json'\) cannot be read"):
        dataset[1]


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_truncated_image(build, tmp_path, data, suffix):
    data['images'][0]['file_name'] = name = f'cut{suffix}'
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    encoded = cv2.imencode(suffix, image)[1].tobytes()
    (tmp_path / name).write_bytes(encoded)
    assert build()[0]['inputs'].shape[0] == 3
    (tmp_path / name).write_bytes(encoded[:-20])
    message = rf"{name}' \(listed in .*\) is truncated: it ends after {len(encoded) - 20} bytes"
    with pytest.raises(UserError, match=message):
        build()[0]


def test_file_that_is_no_image(build, tmp_path):
    (tmp_path / '0.png').write_bytes(b'<html>not found</html>')
    with pytest.raises(UserError, match="0.png' .* is not an image of a format that is read: JPEG, PNG,"):
        build()[0]


def test_image_of_another_size(build, data):
    data['images'][0].update(width=41)
    with pytest.raises(UserError, match=r'is 40x30 pixels, but its annotation .* says 41x30'):
        build()[0]


def loader(dataset, workers: int):
    sampler = dict(type='mmcondetr.EpochSampler', shuffle=True)
    return Runner.build_dataloader(
        dict(batch_size=2, num_workers=workers, sampler=sampler, batch_sampler=None, dataset=dataset), seed=4
    )


def images_of(batches) -> list[torch.Tensor]:
    return [image for batch in batches for image in batch['inputs']]


def test_an_error_in_a_worker_reads_as_in_the_process(build, tmp_path):
    dataset = build()
    (tmp_path / '1.png').unlink()
    with pytest.raises(UserError) as caught:
        list(loader(dataset, workers=1))
    assert str(caught.value).startswith("Image file '") and 'Traceback' not in str(caught.value)


def test_augmentation_depends_on_seed_epoch_and_index_only(build):
    dataset = build()
    passes = {}
    for workers in (0, 1, 2):
        batches = loader(dataset, workers)
        sampler = getattr(batches.batch_sampler, 'sampler', batches.sampler)
        for epoch in (0, 1, 0):
            np.random.seed(workers)
            torch.manual_seed(workers)
            sampler.set_epoch(epoch)
            found = images_of(batches)
            expected = passes.setdefault(epoch, found)
            assert all(torch.equal(*pair) for pair in zip(found, expected))
    assert any(one.shape != other.shape or not torch.equal(one, other) for one, other in zip(passes[0], passes[1]))


def test_reading_items_leaves_the_random_states_alone(build):
    batches = loader(build(), workers=0)
    next(iter(batches))  # making an iterator draws from torch's generator
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    list(batches)
    assert (np.random.get_state()[1] == before).all()
