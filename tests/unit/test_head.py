"""The head: eq. 1, initialisation, losses of all layers in one pass against mmdet's, one wait for the device."""

import math

import torch
from host_reads import HostReads
from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from tiny_model import batch, build, tiny_config

from mmcondetr.models.matching import HungarianMatcher


def head_and_states(layers=3, seed=0):
    head = build(tiny_config()).bbox_head
    generator = torch.Generator().manual_seed(seed)
    hidden_states = torch.randn(layers, 2, 12, 32, generator=generator)
    references = torch.randn(layers, 2, 12, 2, generator=generator)
    return head, hidden_states, references


def test_boxes_are_the_sigmoid_of_offsets_from_the_reference():
    head, hidden_states, references = head_and_states()
    logits, boxes = head(hidden_states, references)
    offsets = head.box_embed(hidden_states)
    torch.testing.assert_close(boxes[..., :2], (offsets[..., :2] + references).sigmoid())
    torch.testing.assert_close(boxes[..., 2:], offsets[..., 2:].sigmoid())
    assert torch.equal(logits, head.class_embed(hidden_states))


def test_at_the_start_boxes_are_half_an_image_around_the_references_and_classes_improbable():
    head, hidden_states, references = head_and_states()
    head.init_weights()
    logits, boxes = head(torch.zeros_like(hidden_states), references)
    torch.testing.assert_close(boxes[..., :2], references.sigmoid())
    assert (boxes[..., 2:] == 0.5).all()
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01))
    assert math.isclose(head.class_embed.bias[0].item(), -math.log(99), rel_tol=1e-6)


def test_losses_are_those_of_mmdets_functions_layer_by_layer():
    head, hidden_states, references = head_and_states()
    _, samples = batch()
    losses = head.loss(hidden_states, references, samples)
    logits, boxes = head(hidden_states, references)
    count = sum(len(sample.gt_instances) for sample in samples)
    focal, l1, giou = FocalLoss(use_sigmoid=True, loss_weight=2.0), L1Loss(loss_weight=5.0), GIoULoss(loss_weight=2.0)
    for layer, prefix in enumerate(('d0.', 'd1.', '')):
        expected = dict(loss_cls=0.0, loss_bbox=0.0, loss_iou=0.0)
        for image, sample in enumerate(samples):
            size = boxes.new_tensor(sample.img_shape[::-1] * 2)
            truth = sample.gt_instances
            target = bbox_xyxy_to_cxcywh(truth.bboxes / size)
            pairs = HungarianMatcher().match(
                logits[layer, image][None, None], boxes[layer, image][None, None], [truth.labels], [target]
            )
            one_hot = torch.zeros_like(logits[layer, image])
            one_hot[pairs.query, truth.labels[pairs.target]] = 1
            matched = boxes[layer, image][pairs.query]
            expected['loss_cls'] += focal(logits[layer, image], one_hot, avg_factor=count)
            expected['loss_bbox'] += l1(matched, target[pairs.target], avg_factor=count)
            expected['loss_iou'] += giou(
                bbox_cxcywh_to_xyxy(matched) * size, truth.bboxes[pairs.target], avg_factor=count
            )
        for name, value in expected.items():
            torch.testing.assert_close(losses[prefix + name], value, rtol=1e-5, atol=1e-6)


def test_the_loss_waits_for_the_device_once_whatever_the_number_of_layers():
    counts = []
    for layers in (1, 6):
        head, hidden_states, references = head_and_states(layers)
        _, samples = batch()
        with HostReads() as reads:
            head.loss(hidden_states, references, samples)
        counts.append(reads.count)
    assert counts == [1, 1]  # whether all losses are finite


def test_detections_are_the_best_pairs_of_query_and_class():
    head, hidden_states, references = head_and_states()
    _, samples = batch()
    result = head.predict(hidden_states, references, samples, rescale=False)[0]
    scores = head(hidden_states, references)[0][-1, 0].sigmoid()
    best, order = scores.flatten().sort(descending=True)
    assert torch.equal(result.scores, best[:20])
    assert torch.equal(result.labels, order[:20] % 5)
