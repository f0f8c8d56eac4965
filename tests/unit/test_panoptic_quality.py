"""Panoptic quality by hand-made cases against the definition (Kirillov et al., section 4)."""

from __future__ import annotations

import numpy as np
import pytest

from mmcondetr.engine.panoptic_quality import TrueSegment, count_segments, summarise

THING, STUFF = 0, 1


def count(truth, true_segments, predicted, labels):
    """Rows of pixels, one letter a segment, '.' for void -> the counts (2, 4)."""
    to_ids = np.vectorize(lambda letter: 0 if letter == '.' else ord(letter))
    grid = [to_ids(np.array([list(row) for row in rows])) for rows in (truth, predicted)]
    true_segments = {ord(name): segment for name, segment in true_segments.items()}
    return count_segments(grid[0], true_segments, grid[1], {ord(k): v for k, v in labels.items()}, num_classes=2)


def test_equal_segments_match_with_iou_one():
    counts = count(['aab', 'aab'], dict(a=TrueSegment(0), b=TrueSegment(1)), ['xxy', 'xxy'], dict(x=0, y=1))
    assert counts.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_an_iou_of_exactly_one_half_is_no_match():
    counts = count(['aa'], dict(a=TrueSegment(0)), ['x.'], dict(x=0))
    assert counts.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]


def test_just_above_one_half_matches():
    counts = count(['aaa'], dict(a=TrueSegment(0)), ['xx.'], dict(x=0))
    assert counts[0] == pytest.approx([2 / 3, 1, 0, 0])


def test_another_class_is_missed_and_wrong():
    counts = count(['aaa'], dict(a=TrueSegment(0)), ['xxx'], dict(x=1))
    assert counts.tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]


def test_pixels_on_void_do_not_count_in_the_union():
    counts = count(['aa..'], dict(a=TrueSegment(0)), ['xxxx'], dict(x=0))
    assert counts[0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(('truth', 'wrong'), [('..ab', 1), ('...a', 0)])
def test_a_prediction_mostly_on_void_is_not_wrong(truth, wrong):
    """Exactly half on void still counts."""
    counts = count([truth], dict(a=TrueSegment(1), b=TrueSegment(1)), ['xxxx'], dict(x=0))
    assert counts[0].tolist() == [0, 0, wrong, 0]


def test_crowds_are_neither_matched_nor_missed():
    crowd = dict(a=TrueSegment(0, is_crowd=True))
    assert not count(['aaaa'], crowd, ['xxxx'], dict(x=0)).any()
    assert not count(['aaaa'], crowd, ['....'], {}).any()


def test_two_crowds_of_one_class_and_void_are_ignored_together():
    crowds = dict(a=TrueSegment(0, is_crowd=True), b=TrueSegment(0, is_crowd=True), c=TrueSegment(1))
    assert count(['ab.cc'], crowds, ['xxxxx'], dict(x=0))[0].tolist() == [0, 0, 0, 0]


def test_a_crowd_of_another_class_does_not_excuse():
    counts = count(['aaaa'], dict(a=TrueSegment(1, is_crowd=True)), ['xxxx'], dict(x=0))
    assert counts.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]


def test_nothing_predicted():
    counts = count(['aabb'], dict(a=TrueSegment(0), b=TrueSegment(0)), ['....'], {})
    assert counts.tolist() == [[0, 0, 0, 2], [0, 0, 0, 0]]


def test_means_are_over_classes_that_were_seen():
    counts = np.array([[1.6, 2, 1, 1], [0.75, 1, 0, 0], [0, 0, 0, 0]])
    result = summarise(counts, np.array([True, False, False]))
    thing = dict(PQ=1.6 / 3, SQ=0.8, RQ=2 / 3)
    for name, value in thing.items():
        assert result[f'{name}_th'] == pytest.approx(100 * value)
        assert result[f'{name}_st'] == pytest.approx(100 * (1.0 if name == 'RQ' else 0.75))
        assert result[name] == pytest.approx((result[f'{name}_th'] + result[f'{name}_st']) / 2)


def test_a_class_without_a_match_has_quality_zero_and_one_without_segments_none():
    result = summarise(np.array([[0, 0, 1, 2], [0, 0, 0, 0]]), np.array([True, False]))
    assert result['PQ'] == result['SQ'] == result['RQ'] == 0 == result['PQ_th']
    assert np.isnan(result['PQ_st'])
