"""One panoptic map from masks that overlap: hand-made cases."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from tiny_masks import with_masks
from tiny_model import batch, build, tiny_config

from mmcondetr.errors import UserError
from mmcondetr.models.masks.panoptic_merging import PanopticMerging

VOID = 4  # two things, two kinds of stuff


def merge(rows: list[list[str]], labels: list[int], scores: list[float] | None = None, **settings) -> list[list[int]]:
    """Masks as rows of digits, the logits of a row of pixels -> the map."""
    logits = torch.tensor([[[float(value) for value in row] for row in mask] for mask in rows])
    merging = PanopticMerging(num_classes=4, num_things=2, **{'min_area': 0, **settings})
    scores = torch.tensor(scores or [0.5] * len(labels))
    return merging.merge(logits, torch.tensor(labels), scores).tolist()


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
    for overlap in (None, 0.8):
        merging = PanopticMerging(num_classes=4, num_things=2, overlap=overlap)
        assert merging.merge(empty, torch.zeros(0, dtype=torch.long), torch.zeros(0)).tolist() == [[VOID] * 3] * 2


def by_score(rows: list[str], labels: list[int], scores: list[float], **settings) -> list[int]:
    """MaskFormer's rule; digits of 5 and more are logits above 0, the others below."""
    logits = torch.tensor([[[float(value) - 4.5 for value in row]] for row in rows])
    merging = PanopticMerging(num_classes=4, num_things=2, **{'min_area': 0, 'overlap': 0.8, **settings})
    return merging.merge(logits, torch.tensor(labels), torch.tensor(scores))[0].tolist()


def test_by_score_a_pixel_in_no_mask_is_void_and_a_confident_mask_wins():
    assert by_score(['9911', '1199'], [0, 2], [0.9, 0.8]) == [1000, 1000, 2, 2]
    assert by_score(['9111', '1119'], [0, 2], [0.9, 0.8]) == [1000, VOID, VOID, 2]
    assert by_score(['77777', '99999'], [0, 1], [0.9, 0.3], overlap=0.0) == [1000] * 5, (
        'where DETR has the largest logit'
    )
    assert merge([['77777'], ['99999']], [0, 1], [0.9, 0.3]) == [[1001] * 5]


def test_by_score_a_mask_that_others_cover_is_dropped_and_its_pixels_are_void():
    masks = ['9999900000', '0009999999']  # of the second mask 5 of 7 are left
    assert by_score(masks, [0, 1], [0.9, 0.8], overlap=0.8) == [1000] * 5 + [VOID] * 5
    assert by_score(masks, [0, 1], [0.9, 0.8], overlap=0.7) == [1000] * 5 + [2001] * 5
    assert by_score(masks[::-1], [1, 0], [0.8, 0.9]) == [1000] * 5 + [VOID] * 5, 'numbered from 1'
    assert by_score(masks, [0, 1], [0.9, 0.8], overlap=0.7, min_area=5) == [VOID] * 10


def test_by_score_stuff_of_one_class_has_one_value():
    assert by_score(['9911', '1199'], [3, 3], [0.9, 0.8]) == [3] * 4
    assert by_score(['9911', '1199'], [1, 1], [0.9, 0.8]) == [1001, 1001, 2001, 2001]


def test_an_overlap_that_is_no_share_is_named():
    with pytest.raises(UserError, match=r'panoptic.overlap=80: must be None, or a share from 0 to 1'):
        PanopticMerging(num_classes=4, num_things=2, overlap=80)


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
