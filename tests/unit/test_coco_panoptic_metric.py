"""The panoptic metric over files: perfect and wrong predictions, and files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from panoptic_files import METAINFO, edit_json, panoptic_dataset, write_panoptic_shapes

from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS, METRICS


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


VOID = len(METAINFO['classes'])


@pytest.fixture
def root(tmp_path):
    return write_panoptic_shapes(tmp_path / 'shapes')


def build(root, metainfo=METAINFO):
    metric = METRICS.build(
        dict(
            type='mmcondetr.CocoPanopticMetric',
            ann_file=str(root / 'annotations/panoptic_val.json'),
            seg_prefix=str(root / 'panoptic_val'),
            classwise=True,
        )
    )
    metric.dataset_meta = metainfo
    return metric


def truth_as_prediction(root) -> dict[int, np.ndarray]:
    """class + 1000 * instance of every held-out image."""
    predictions = {}
    for item in DATASETS.build(panoptic_dataset(root)):
        labels, masks = item['gt_bboxes_labels'], item['gt_masks'].masks
        predictions[item['img_id']] = sum(
            (label + 1000 * i) * mask for i, (label, mask) in enumerate(zip(labels, masks))
        )
    return predictions


def evaluate(root, predictions, metainfo=METAINFO):
    metric = build(root, metainfo)
    for image, prediction in predictions.items():
        sem_seg = torch.as_tensor(prediction)[None]
        metric.process({}, [dict(img_id=image, pred_panoptic_seg=dict(sem_seg=sem_seg))])
    return metric.evaluate(len(predictions))


def test_the_truth_has_quality_100(root):
    result = evaluate(root, truth_as_prediction(root))
    assert {name.split('/')[1]: round(value, 6) for name, value in result.items()} == {
        f'{name}{suffix}': 100 for name in ('PQ', 'SQ', 'RQ') for suffix in ('', '_th', '_st')
    }


def test_void_is_wrong_nowhere_and_misses_everything(root):
    result = evaluate(root, {image: np.full((64, 64), VOID) for image in truth_as_prediction(root)})
    assert result['coco_panoptic/PQ'] == 0


def test_things_alone(root):
    """Stuff is predicted as void: its quality is 0, that of things 100, and all is the mean over classes."""
    predictions = truth_as_prediction(root)
    seen = np.unique(np.concatenate([np.unique(prediction % 1000) for prediction in predictions.values()]))
    for prediction in predictions.values():
        prediction[prediction % 1000 >= 6] = VOID
    result = evaluate(root, predictions)
    assert result['coco_panoptic/PQ_th'] == pytest.approx(100)
    assert result['coco_panoptic/PQ_st'] == 0
    assert result['coco_panoptic/PQ'] == pytest.approx(100 * np.mean(seen < 6))


def test_only_tested_images_count(root):
    predictions = truth_as_prediction(root)
    assert evaluate(root, dict(list(predictions.items())[:1]))['coco_panoptic/PQ'] == pytest.approx(100)


def test_what_does_not_fit_is_named(root):
    with pytest.raises(UserError, match='does not list the tested image 99'):
        build(root).count(99, np.zeros((64, 64), int))
    with pytest.raises(UserError, match=r'The prediction of image 1 is \(32, 32\)'):
        build(root).count(1, np.zeros((32, 32), int))
    with pytest.raises(UserError, match=r"panoptic_val.json' lacks classes of the data set, cat: it must be"):
        build(root, dict(classes=('cat', *METAINFO['classes'])))
    edit_json(
        root / 'annotations/panoptic_val.json', lambda data: data['annotations'][0]['segments_info'][0].update(id=5)
    )
    with pytest.raises(UserError, match='disagree'):
        build(root).count(1, np.zeros((64, 64), int))
    with pytest.raises(UserError, match='seg_prefix'):
        METRICS.build(
            dict(
                type='mmcondetr.CocoPanopticMetric',
                ann_file=str(root / 'annotations/panoptic_val.json'),
                seg_prefix=str(root / 'absent'),
            )
        )


def test_classes_that_the_data_set_leaves_out_are_void(root):
    """What is predicted on them is not wrong, what is missed elsewhere still is."""
    kept = tuple(name for name in METAINFO['classes'] if name not in ('star', 'sand'))
    new = np.array([kept.index(name) if name in kept else len(kept) for name in METAINFO['classes']])
    predictions = truth_as_prediction(root)
    left_out = [
        np.isin(each % 1000, [METAINFO['classes'].index(name) for name in ('star', 'sand')])
        for each in predictions.values()
    ]
    assert any(mask.any() for mask in left_out)
    renamed = {image: new[each % 1000] + each // 1000 * 1000 for image, each in predictions.items()}
    result = evaluate(root, renamed, dict(classes=kept))
    assert result['coco_panoptic/PQ'] == result['coco_panoptic/PQ_th'] == pytest.approx(100)
    for image, mask in zip(renamed, left_out):  # a circle where a star is
        renamed[image] = np.where(mask, 9000, renamed[image])
    assert evaluate(root, renamed, dict(classes=kept))['coco_panoptic/PQ'] == pytest.approx(100)
    for image in renamed:
        renamed[image] = np.where(renamed[image] == 9000, renamed[image], len(kept))
    assert evaluate(root, renamed, dict(classes=kept))['coco_panoptic/PQ'] == 0
