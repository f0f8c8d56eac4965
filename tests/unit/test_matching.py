"""The matcher against mmdet's, its batching, and how often it waits for the device."""

import itertools

import pytest
import torch
from host_reads import HostReads
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmengine.structures import InstanceData

from mmcondetr.models.matching import HungarianMatcher

LAYERS, IMAGES, QUERIES, CLASSES = 3, 2, 9, 5
COUNTS = (4, 2)


def predictions(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(LAYERS, IMAGES, QUERIES, CLASSES, generator=generator) * 2
    boxes = torch.rand(LAYERS, IMAGES, QUERIES, 4, generator=generator) * 0.4 + 0.3
    labels = [torch.randint(0, CLASSES, (count,), generator=generator) for count in COUNTS]
    targets = [torch.rand(count, 4, generator=generator) * 0.4 + 0.3 for count in COUNTS]
    return logits.to(dtype), boxes, labels, targets


def by_layer_and_image(matches):
    rows = zip(*(x.tolist() for x in (matches.layer, matches.image, matches.query, matches.target)))
    return {key: [row[2:] for row in group] for key, group in itertools.groupby(rows, key=lambda row: row[:2])}


def test_every_layer_and_image_is_matched_as_mmdet_matches_it():
    logits, boxes, labels, targets = predictions()
    found = by_layer_and_image(HungarianMatcher().match(logits, boxes, labels, targets))
    assert list(found) == [(layer, image) for layer in range(LAYERS) for image in range(IMAGES)]
    mmdets = HungarianAssigner(
        match_costs=[
            dict(type='mmdet.FocalLossCost', weight=2.0),
            dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
        ]
    )
    size = torch.tensor([200.0, 100.0, 200.0, 100.0])

    def xyxy(box):
        return torch.cat((box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2), dim=-1) * size

    for (layer, image), pairs in found.items():
        assigned = mmdets.assign(
            InstanceData(scores=logits[layer, image], bboxes=xyxy(boxes[layer, image])),
            InstanceData(labels=labels[image], bboxes=xyxy(targets[image])),
            dict(img_shape=(100, 200)),
        )
        theirs = [(query, index - 1) for query, index in enumerate(assigned.gt_inds.tolist()) if index > 0]
        assert pairs == theirs


def test_a_pair_is_the_cheapest_of_all_assignments():
    logits, boxes, labels, targets = predictions()
    matcher = HungarianMatcher()
    cost = matcher.cost(logits[:1, 1:], boxes[:1, 1:], labels[1][None], targets[1][None])[0, 0]  # (N, 2)
    pairs = by_layer_and_image(matcher.match(logits, boxes, labels, targets))[0, 1]
    total = sum(cost[query, target] for query, target in pairs)
    best = min(cost[a, 0] + cost[b, 1] for a, b in itertools.permutations(range(QUERIES), 2))
    assert total == pytest.approx(best.item(), abs=1e-5)


def test_images_of_a_batch_do_not_touch_each_other():
    logits, boxes, labels, targets = predictions()
    together = by_layer_and_image(HungarianMatcher().match(logits, boxes, labels, targets))
    for image in range(IMAGES):
        alone = HungarianMatcher().match(
            logits[:, image : image + 1],
            boxes[:, image : image + 1],
            labels[image : image + 1],
            targets[image : image + 1],
        )
        for (layer, _), pairs in by_layer_and_image(alone).items():
            assert pairs == together[layer, image]


def test_more_objects_than_queries_and_none_at_all():
    logits, boxes, _, _ = predictions()
    labels = [torch.zeros(QUERIES + 3, dtype=torch.long), torch.zeros(0, dtype=torch.long)]
    targets = [torch.full((QUERIES + 3, 4), 0.5), torch.zeros(0, 4)]
    found = by_layer_and_image(HungarianMatcher().match(logits, boxes, labels, targets))
    assert {key: len(pairs) for key, pairs in found.items()} == {(layer, 0): QUERIES for layer in range(LAYERS)}


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_what_is_not_finite_is_left_to_the_loss(bad):
    logits, boxes, labels, targets = predictions()
    boxes[0, 0, 0] = bad
    found = by_layer_and_image(HungarianMatcher().match(logits, boxes, labels, targets))
    assert len(found[0, 0]) == COUNTS[0] and 0 not in [query for query, _ in found[0, 0]]


def test_half_precision_logits_cost_what_their_float32_values_cost():
    logits, boxes, labels, targets = predictions(torch.float16)
    matcher, one = HungarianMatcher(), (labels[0][None], targets[0][None])
    half, full = (matcher.cost(x[:, :1], boxes[:, :1], *one) for x in (logits, logits.float()))
    assert half.dtype == torch.float32 and torch.equal(half, full)


def test_no_value_is_read_one_by_one():
    with HostReads() as reads:
        HungarianMatcher().match(*predictions())
    assert reads.count == 0  # one transfer of all costs, and one of the pairs back
    with HostReads() as reads:
        torch.ones(1).item()
    assert reads.count == 1
