"""One panoptic map from masks that overlap: hand-made cases."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from tiny_masks import with_masks
from tiny_model import batch, build, tiny_config

from mmcondetr.models.masks.panoptic_merging import PanopticMerging

VOID = 4  # two things, two kinds of stuff


def merge(rows: list[list[str]], labels: list[int], **settings) -> list[list[int]]:
    """Masks as rows of digits, the logits of a row of pixels -> the map."""
    logits = torch.tensor([[[float(value) for value in row] for row in mask] for mask in rows])
    merging = PanopticMerging(num_classes=4, num_things=2, **{'min_area': 0, **settings})
    return merging.merge(logits, torch.tensor(labels)).tolist()


def test_each_pixel_goes_to_the_largest_logit_and_things_are_numbered():
    assert merge([['991111'], ['119911'], ['111199']], [0, 2, 0]) == [[1000, 1000, 2, 2, 2000, 2000]]


def test_stuff_of_one_class_is_one_segment_and_things_are_not():
    assert merge([['91'], ['19']], [3, 3]) == [[3, 3]]
    assert merge([['91'], ['19']], [1, 1]) == [[1001, 2001]]


def test_small_segments_are_dropped_and_their_pixels_given_to_the_others():
    masks = [['91111111'], ['15555555'], ['11333333']]
    assert merge(masks, [0, 1, 2], min_area=0) == [[1000, *[2001] * 7]]
    assert merge(masks[:2], [0, 1], min_area=1) == [[1001] * 8]


def test_all_small_segments_go_at_once():
    masks = [['9000'], ['8900'], ['0098']]
    assert merge(masks, [0, 1, 0], min_area=1) == [[1000] * 4]
    assert merge(masks, [0, 1, 0], min_area=2) == [[VOID] * 4]


def test_small_parts_of_merged_stuff_stay():
    assert merge([['911111'], ['199999']], [2, 2], min_area=3) == [[2] * 6]


def test_nothing_is_void():
    empty = torch.zeros(0, 2, 3)
    merged = PanopticMerging(num_classes=4, num_things=2).merge(empty, torch.zeros(0, dtype=torch.long))
    assert merged.tolist() == [[VOID] * 3] * 2


def test_confident_queries_are_kept_each_with_its_best_class():
    result = InstanceData(
        scores=torch.tensor([0.9, 0.8, 0.7, 0.3]),
        labels=torch.tensor([1, 0, 2, 2]),
        queries=torch.tensor([5, 5, 3, 1]),
    )
    chosen = PanopticMerging(num_classes=4, num_things=2, score_threshold=0.5).choose(result)
    assert chosen.tolist() == [0, 2]


@pytest.mark.parametrize('threshold', [0.0, 2.0])
def test_the_detector_gives_a_map_and_things_only(threshold):
    init_default_scope('mmdet')
    panoptic = dict(num_classes=5, num_things=3, score_threshold=threshold, min_area=4)
    model = build(with_masks(tiny_config(), panoptic=panoptic))
    images, samples = batch()
    with torch.no_grad():
        results = model.predict(images, samples)
    for sample in results:
        sem_seg = sample.pred_panoptic_seg.sem_seg
        assert sem_seg.shape == (1, *sample.ori_shape)
        assert (sample.pred_instances.labels < 3).all()
        assert len(sample.pred_instances.masks) == len(sample.pred_instances.labels)
        classes = sem_seg % 1000
        assert (classes == 5).all() if threshold else ((classes < 5).all() and (sem_seg[classes >= 3] < 1000).all())
