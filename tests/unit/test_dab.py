"""DAB-DETR's additions: anchor boxes that move, size modulation, patterns, positions scaled by content."""

import math

import pytest
import torch
from tiny_model import batch, build
from tiny_variants import ROOT, tiny_variant
from torch import nn

from mmcondetr.models.positional import sine_embed
from mmcondetr.registry import MODELS

D, N = 32, 5


def anchors(**arguments) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(dict(type='mmcondetr.AnchorBoxes', embed_dims=D), **arguments))


def model(name: str = 'dab-detr_r50_8xb2') -> nn.Module:
    return build(tiny_variant(ROOT / f'configs/dab_detr/{name}-50e_coco.py'))


class Zero(nn.Module):
    def forward(self, f):
        return f.new_zeros(*f.shape[:-1], 4)


def test_object_query_is_made_from_the_whole_box():
    module, boxes, memory = anchors(), torch.randn(1, N, 4), torch.randn(2, 7, D)
    _, position = module.start(boxes, memory)
    expected = module.query_predictor(sine_embed(boxes.sigmoid(), D))
    assert torch.allclose(position.object_query, expected, rtol=0, atol=1e-6)


def test_position_is_modulated_by_width_in_x_and_height_in_y():
    module, boxes, memory = anchors(), torch.randn(1, N, 4), torch.randn(1, 7, D)
    f, position = module.start(boxes, memory)
    p_s = sine_embed(boxes[..., :2].sigmoid(), D)  # y before x
    size, wanted = boxes[..., 2:].sigmoid(), module.size_predictor(f).sigmoid()
    scale = position.p_s / p_s
    assert torch.allclose(scale[..., : D // 2], (wanted / size)[..., 1:].expand(-1, -1, D // 2), rtol=1e-4, atol=0)
    assert torch.allclose(scale[..., D // 2 :], (wanted / size)[..., :1].expand(-1, -1, D // 2), rtol=1e-4, atol=0)


def test_a_still_box_keeps_its_place_but_far_logits_are_clamped():
    module, memory = anchors(), torch.randn(2, 7, D)
    boxes = torch.tensor([[[0.5, -3.0, 2.0, -6.0], [20.0, -20.0, 0.0, 0.0]]])
    f, position = module.start(boxes, memory)
    module.box_embed = Zero()
    moved = module.move(position, f)
    assert torch.allclose(moved.reference[0, 0], boxes[0, 0], rtol=0, atol=1e-6)
    most = math.log(1000)
    assert torch.allclose(position.reference[0, 1], torch.tensor([most, -most, 0.0, 0.0]), rtol=0, atol=1e-6)
    # Each clamp costs 0.001 of a logit, because the authors clamp x and 1 - x separately.
    assert torch.allclose(moved.reference[0, 1], torch.tensor([most, -most, 0.0, 0.0]), rtol=0, atol=1.1e-3)


def test_gradients_reach_the_last_move_and_no_further():
    module, memory = anchors(), torch.randn(1, 7, D)
    boxes = torch.randn(1, N, 4, requires_grad=True)
    moves = [nn.Linear(D, 4) for _ in range(2)]
    f, first = module.start(boxes, memory)
    module.box_embed = moves[0]
    second = module.move(first, f + 1)
    module.box_embed = moves[1]
    third = module.move(second, f + 2)
    assert torch.autograd.grad(second.reference.sum(), boxes, retain_graph=True)[0].abs().min() > 0
    grads = torch.autograd.grad(third.reference.sum(), [boxes, moves[0].weight, moves[1].weight], allow_unused=True)
    assert grads[0] is None and grads[1] is None and grads[2].abs().min() > 0


def test_fixed_centres_are_spread_and_get_no_gradient():
    module = anchors(fixed_xy=True)
    embedding = module.query_embedding(300)
    assert torch.histc(embedding.weight[:, 0].detach().sigmoid(), 4, 0, 1).min() > 40  # of 75 expected
    module(embedding.weight[None]).square().sum().backward()
    assert not embedding.weight.grad[:, :2].any()
    assert embedding.weight.grad[:, 2:].abs().min() > 0


def test_patterns_multiply_the_queries_pattern_by_pattern():
    module = anchors(type='mmcondetr.PatternAnchorBoxes', num_patterns=3)
    boxes = torch.randn(1, N, 4)
    f, position = module.start(boxes, torch.randn(2, 7, D))
    assert f.shape == (2, 3 * N, D) and position.reference.shape == (1, 3 * N, 4)
    assert torch.allclose(position.reference, torch.cat([boxes] * 3, dim=1), rtol=0, atol=1e-6)
    assert torch.equal(f[1].unflatten(0, (3, N))[:, 2], module.patterns.weight)


def test_no_patterns_is_an_error_that_names_the_class_for_it():
    with pytest.raises(ValueError, match='num_patterns must be at least 1, got 0; or use AnchorBoxes'):
        anchors(type='mmcondetr.PatternAnchorBoxes', num_patterns=0)


def test_encoder_scales_positions_by_the_content():
    encoder = model().encoder
    tokens, position = torch.randn(2, 3, 7, D).unbind()
    expected = tokens
    for layer in encoder.layers:
        expected = layer(expected, position * encoder.position_scale(expected))
    assert torch.equal(encoder(tokens, position), expected)
    assert isinstance(encoder.layers[0].ffn.activation, nn.PReLU)


def test_recomputing_activations_changes_no_gradient():
    gradients = []
    for with_cp in (False, True):
        net, (images, samples) = model(), batch()
        net.encoder.with_cp = net.decoder.with_cp = with_cp
        sum(net.train()(images, samples, mode='loss').values()).backward()
        gradients.append(net.encoder.position_scale.layers[0].weight.grad)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6) and gradients[0].abs().max() > 1e-4


def test_boxes_move_in_float32_under_autocast():
    net, (images, samples) = model(), batch()
    with torch.autocast('cpu', torch.bfloat16):
        hidden, references = net.decode(images, samples)
        boxes = net.bbox_head(hidden, references)[1]
    assert references.dtype == boxes.dtype == torch.float32
    assert boxes.isfinite().all()


def test_boxes_move_from_layer_to_layer():
    net, (images, samples) = model(), batch()
    hidden, references = net.decode(images, samples)
    assert references.shape == (3, 2, 12, 4)
    assert torch.allclose(references[0, 0], net.query_embedding.weight, rtol=0, atol=1e-6)
    assert (references[1:] - references[:-1]).abs().amax(dim=(1, 2, 3)).min() > 0.01
    boxes = net.bbox_head(hidden, references)[1]
    assert torch.allclose(boxes[1], (net.bbox_head.box_embed(hidden[1]) + references[1]).sigmoid(), rtol=0, atol=1e-6)


def test_prediction_uses_the_last_layers_boxes():
    net, (images, samples) = model(), batch()
    logits, boxes = net(images, samples, mode='tensor')
    best = net(images, samples, mode='predict')[0].pred_instances
    query = logits[-1, 0].sigmoid().flatten().argmax() // 5
    width = (best.bboxes[0, 2] - best.bboxes[0, 0]) / 128
    assert torch.allclose(width, boxes[-1, 0, query, 2], rtol=1e-4, atol=0)


def test_settings_are_the_authors():
    config = tiny_variant(ROOT / 'configs/dab_detr/dab-detr_r50_8xb2-50e_coco.py')
    assert config['positional_encoding']['temperature'] == 20
    assert config['bbox_head']['loss_cls']['loss_weight'] == 1.0
    assert config['train_cfg']['assigner']['class_cost'] == 2.0
