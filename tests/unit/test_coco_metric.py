"""COCO metrics over the tested images, with clear errors for a wrong annotation file."""

from __future__ import annotations

import json

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmcondetr.errors import UserError
from mmcondetr.registry import METRICS


@pytest.fixture
def ann_file(tmp_path):
    """Four images with one box each."""
    data = dict(
        images=[dict(id=number, file_name=f'{number}.png', width=40, height=40) for number in range(4)],
        annotations=[
            dict(id=number + 1, image_id=number, category_id=1, bbox=[5, 5, 20, 20], area=400, iscrowd=0)
            for number in range(4)
        ],
        categories=[dict(id=1, name='cat')],
    )
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(data))
    return str(path)


def evaluate(ann_file: str, images: list[int]) -> dict:
    """AP of perfect detections in some of the images."""
    metric = METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=ann_file, metric='bbox'))
    metric.dataset_meta = dict(classes=('cat',))
    for number in images:
        box = torch.tensor([[5.0, 5.0, 25.0, 25.0]])
        found = InstanceData(bboxes=box, scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.long))
        sample = DetDataSample(metainfo=dict(img_id=number, ori_shape=(40, 40)), pred_instances=found)
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(images))


def test_images_that_were_not_tested_do_not_count_as_missed(ann_file):
    assert evaluate(ann_file, [0, 1, 2, 3])['coco/bbox_mAP'] == pytest.approx(1.0, abs=1e-6)
    assert evaluate(ann_file, [1, 3])['coco/bbox_mAP'] == pytest.approx(1.0, abs=1e-6)


def change(ann_file: str, edit) -> None:
    with open(ann_file) as file:
        data = json.load(file)
    edit(data['annotations'])
    with open(ann_file, 'w') as file:
        json.dump(data, file)


@pytest.mark.parametrize('box', [[5, 5, 0, 20], [5, 5, 20, -3], [50, 5, 20, 20]])
def test_boxes_without_area_do_not_count_as_missed(ann_file, box):
    """With mmdet's CocoMetric the AP of the same perfect detections is 0.80."""

    def add(annotations: list) -> None:
        annotations.append(dict(id=9, image_id=2, category_id=1, bbox=box, area=0, iscrowd=0))

    change(ann_file, add)
    with pytest.warns(UserWarning, match=r'1 boxes .* have no area and do not count as missed \(annotation ids 9\)'):
        assert evaluate(ann_file, [0, 1, 2, 3])['coco/bbox_mAP'] == pytest.approx(1.0, abs=1e-6)


def test_an_annotation_with_id_0_is_found(ann_file):
    """COCOeval treats a match with id 0 as none."""
    change(ann_file, lambda annotations: [entry.update(id=entry['id'] - 1) for entry in annotations])
    assert evaluate(ann_file, [0, 1, 2, 3])['coco/bbox_mAP'] == pytest.approx(1.0, abs=1e-6)


def test_area_and_iscrowd_may_be_absent(ann_file):
    change(ann_file, lambda annotations: [(entry.pop('area'), entry.pop('iscrowd')) for entry in annotations])
    assert evaluate(ann_file, [0, 1, 2, 3])['coco/bbox_mAP'] == pytest.approx(1.0, abs=1e-6)


def test_an_image_of_another_file(ann_file):
    with pytest.raises(UserError, match=r'does not list the tested image 9 \(1 of 2 are missing\)'):
        evaluate(ann_file, [1, 9])


def test_annotation_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="absent.json' does not exist. It comes from val_evaluator/test_evaluator.ann"):
        METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=str(tmp_path / 'absent.json')))


@pytest.mark.parametrize('ann_file', [None, ''])
def test_annotation_file_not_given(ann_file):
    with pytest.raises(UserError, match='ann_file is not set'):
        METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=ann_file))


@pytest.mark.parametrize('field, position', [('bboxes', (0, 2)), ('scores', 0)])
@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_predictions_that_are_not_finite_are_not_evaluated(ann_file, field, position, value):
    """pycocotools treats a NaN box as a match."""
    metric = METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=ann_file, metric='bbox'))
    found = dict(bboxes=torch.tensor([[5.0, 5.0, 25.0, 25.0]]), scores=torch.ones(1), labels=torch.zeros(1).long())
    good = dict(img_id=0, img_path='data/0.png', ori_shape=(40, 40), pred_instances=dict(found))
    found[field] = found[field].clone()
    found[field][position] = float(value)
    bad = dict(img_id=1, img_path='data/1.png', ori_shape=(40, 40), pred_instances=found)
    with pytest.raises(UserError, match=rf"predictions for 'data/1.png' have {field} that are NaN or infinite"):
        metric.process({}, [good, bad])
