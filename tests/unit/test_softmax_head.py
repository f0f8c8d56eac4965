"""DETR's classification: a softmax with a background, its loss, its matching cost, its detections."""

import pytest
import torch
import torch.nn.functional as F
from tiny_model import batch, build
from tiny_variants import ROOT, tiny_variant

from mmcondetr.models.matching import Matches

N = 6


def softmax_head():
    return build(tiny_variant(ROOT / 'configs/ablations/detr_r50_additive_8xb2-50e_coco.py')).bbox_head


def test_classification_is_the_weighted_mean_cross_entropy_of_every_layer():
    head = softmax_head()
    logits = torch.randn(3, 2, N, 6)
    matches = Matches(*torch.tensor([[0, 0, 1, 2], [0, 1, 1, 0], [3, 2, 0, 5], [0, 0, 0, 0]]))
    classes = torch.tensor([1, 4, 4, 0])
    target = torch.full((3, 2, N), 5)
    target[matches.predictions] = classes
    weight = torch.tensor([1.0] * 5 + [0.1])
    loss = head.classification_loss(logits, matches, classes, torch.tensor(7.0)).sum(dim=1)
    for index in range(3):
        expected = F.cross_entropy(logits[index].flatten(0, 1), target[index].flatten(), weight)
        assert torch.allclose(loss[index], expected, rtol=1e-5, atol=0)


def test_matching_cost_of_a_class_is_minus_its_probability():
    matcher = softmax_head().matcher
    logits, target_labels = torch.randn(1, 1, N, 6), torch.tensor([[[[2, 0]]]]).expand(1, 1, N, 2)
    probabilities = logits.softmax(-1)
    expected = -torch.stack([probabilities[..., 2], probabilities[..., 0]], dim=-1)
    assert torch.equal(matcher.classification_cost(logits, target_labels), expected)
    assert matcher.class_cost == 1.0


def test_the_loss_of_an_image_does_not_depend_on_the_number_of_boxes():
    head = softmax_head()
    logits = torch.randn(1, 2, N, 6)
    matches = Matches(*torch.tensor([[0], [1], [3], [0]]))
    losses = [
        head.classification_loss(logits, matches, torch.tensor([2]), torch.tensor(count)) for count in (1.0, 50.0)
    ]
    assert torch.equal(*losses)


def test_an_image_without_objects_is_background_everywhere():
    head = softmax_head()
    logits = torch.randn(1, 1, N, 6)
    nothing = Matches(*torch.zeros(4, 0, dtype=torch.long))
    loss = head.classification_loss(logits, nothing, torch.zeros(0, dtype=torch.long), torch.tensor(1.0))
    expected = F.cross_entropy(logits[0, 0], torch.full((N,), 5))  # equal weights of 0.1 cancel in the mean
    torch.testing.assert_close(loss, expected[None, None])


def test_scores_leave_the_background_out():
    logits = torch.randn(2, N, 6)
    scores = softmax_head().class_scores(logits)
    assert scores.shape == (2, N, 5)
    torch.testing.assert_close(scores.sum(-1), 1 - logits.softmax(-1)[..., -1])


def test_training_starts_with_all_outputs_alike():
    head = softmax_head()
    head.init_weights()
    assert head.class_embed.bias.shape == (6,)
    assert not head.class_embed.bias.any()


@pytest.mark.parametrize('padded', [False, True])
def test_the_losses_train_the_head(padded):
    model, (images, samples) = (
        build(tiny_variant(ROOT / 'configs/ablations/detr_r50_additive_8xb2-50e_coco.py')),
        batch(),
    )
    if not padded:
        images, samples = images[:1], samples[:1]
    losses = model.train()(images, samples, mode='loss')
    assert len(losses) == 9 and all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    assert all(row.any() for row in model.bbox_head.class_embed.weight.grad)  # every class, and the background


def test_background_is_never_predicted():
    model, (images, samples) = build(tiny_variant(ROOT / 'configs/ablations/detr_r50_or_8xb2-50e_coco.py')), batch()
    model.bbox_head.class_embed.bias.data[-1] = 100.0
    result = model(images, samples, mode='predict')[0].pred_instances
    assert result.labels.max() < 5 and result.scores.max() < 1e-6
