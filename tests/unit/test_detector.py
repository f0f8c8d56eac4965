"""The detector as mmdet sees it, its gradients, its padding, its wrong input."""

import pytest
import torch
from mmdet.registry import MODELS
from tiny_model import batch, build, is_silent, sample, tiny_config

from mmcondetr.errors import NonFiniteLossError
from mmcondetr.models.attention import Memory
from mmcondetr.models.detector import padding_mask


def test_loss_names_and_shapes_are_mmdets():
    model, (images, samples) = build(tiny_config()), batch()
    losses = model(images, samples, mode='loss')
    expected = {f'{prefix}{term}' for prefix in ('', 'd0.', 'd1.') for term in ('loss_cls', 'loss_bbox', 'loss_iou')}
    assert set(losses) == expected
    assert all(value.dim() == 0 and value > 0 for value in losses.values())


def test_predict_gives_boxes_in_pixels_of_the_original_image():
    model, (images, samples) = build(tiny_config()), batch()
    samples[1].set_metainfo(dict(scale_factor=(0.5, 0.25), ori_shape=(280, 200)))
    logits, boxes = model(images, samples, mode='tensor')
    results = model(images, samples, mode='predict')
    best = logits[-1, 1].sigmoid().flatten().argmax()
    cx, cy, width, height = boxes[-1, 1, best // 5]
    expected = torch.stack([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
    expected = expected * torch.tensor([200.0, 280.0, 200.0, 280.0])
    prediction = results[1].pred_instances
    assert torch.allclose(prediction.bboxes[0], expected, rtol=1e-5, atol=1e-3)
    assert prediction.labels[0] == best % 5
    assert len(prediction.scores) == 20 and (prediction.scores[:-1] >= prediction.scores[1:]).all()


def test_boxes_are_clipped_only_on_request():
    config, (images, samples) = tiny_config(), batch()
    outside = build(config)(images, samples, mode='predict')[0].pred_instances.bboxes
    assert (outside[:, 0] < 0).any() or (outside[:, 2] > 128).any()
    config['test_cfg']['clip_boxes'] = True
    inside = build(config)(images, batch()[1], mode='predict')[0].pred_instances.bboxes
    assert (inside >= 0).all() and (inside[:, 0::2] <= 128).all() and (inside[:, 1::2] <= 96).all()


def test_tensor_mode_works_without_samples():
    model, (images, samples) = build(tiny_config()), batch()
    logits, boxes = model(images[:1], mode='tensor')
    expected = model(images[:1], samples[:1], mode='tensor')
    assert logits.shape == (3, 1, 12, 5) and boxes.shape == (3, 1, 12, 4)
    assert torch.equal(logits, expected[0]) and torch.equal(boxes, expected[1])


def test_every_parameter_has_a_gradient_and_only_documented_ones_are_zero():
    model, (images, samples) = build(tiny_config()), batch()
    sum(model(images, samples, mode='loss').values()).backward()
    largest = {name: parameter.grad.abs().max().item() for name, parameter in model.named_parameters()}
    scale = max(largest.values())
    silent = {name for name, value in largest.items() if value < 1e-7 * scale}
    assert silent == {name for name in largest if is_silent(name)}


def test_dropout_acts_after_both_attentions_and_the_feed_forward_network():
    # Difference 2 from mmdet's copy, where the decoder's residual branches have no dropout.
    layer = build(tiny_config()).decoder.layers[1].train()
    layer.self_attn.attention.dropout = layer.cross_attn.attention.dropout = layer.ffn.dropout.p = 0.0
    f, query, memory = torch.randn(1, 12, 32), torch.randn(1, 12, 32), torch.randn(1, 6, 32)
    once, again = layer.self_attend(f, query), layer.self_attend(f, query)
    assert not torch.equal(once, again)
    layer.ffn.linear2.weight.data.zero_()  # leaves the dropout after the cross-attention
    layer.ffn.linear2.bias.data.zero_()
    once, again = (layer.cross_attend(f, f, Memory(memory, memory)) for _ in range(2))
    assert not torch.equal(once, again)


def test_initial_boxes_are_the_reference_points_and_initial_probabilities_one_percent():
    # Difference 3 from mmdet's copy: the last box layer starts at zero.
    config, (images, samples) = tiny_config(), batch()
    model = build(config)
    model.init_weights()
    _, reference = model.decode(images, samples)
    _, boxes = model(images, samples, mode='tensor')
    assert torch.allclose(boxes[..., :2], reference.sigmoid().expand(3, 2, -1, -1), atol=1e-6)
    assert torch.equal(boxes[..., 2:], torch.full_like(boxes[..., 2:], 0.5))
    assert torch.allclose(model.bbox_head.class_embed.bias.sigmoid(), torch.tensor(0.01), atol=1e-6)


def test_extra_padding_changes_the_transformers_outputs_by_at_most_1e_5():
    model = build(tiny_config())
    features = torch.randn(2, 32, 4, 5, generator=torch.Generator().manual_seed(1))
    padding = torch.zeros(2, 4, 5, dtype=torch.bool)
    padding[1, 3:] = True
    padded = torch.cat([features, 100 * torch.ones(2, 32, 4, 3)], dim=3)
    padded = torch.cat([padded, -100 * torch.ones(2, 32, 2, 8)], dim=2)
    more = torch.ones(2, 6, 8, dtype=torch.bool)
    more[:, :4, :5] = padding
    expected, _ = model.forward_transformer(features, padding)
    hidden, _ = model.forward_transformer(padded, more)
    assert expected.std(dim=2).mean() > 0.03  # queries are apart, so that agreement means something
    assert torch.allclose(hidden, expected, rtol=0, atol=1e-5)


def test_no_mask_where_nothing_is_padded_and_the_same_outputs():
    model, (images, samples) = build(tiny_config()), batch()
    assert padding_mask(images[:1], samples[:1]) is None
    features = model.extract_feat(images[:1])
    without, _ = model.forward_transformer(features, None)
    with_mask, _ = model.forward_transformer(features, torch.zeros(1, 96, 128, dtype=torch.bool))
    assert torch.allclose(without, with_mask, rtol=0, atol=1e-5)


def test_padding_mask_marks_what_lies_outside_the_image():
    images, samples = batch()
    mask = padding_mask(images, samples)
    assert mask.shape == (2, 96, 128) and not mask[0].any()
    assert not mask[1, :70, :100].any() and mask[1, 70:].all() and mask[1, :, 100:].all()


def test_images_without_ground_truth_train():
    model, (images, _) = build(tiny_config()), batch()
    samples = [sample((96, 128), (96, 128), [], []), sample((70, 100), (96, 128), [], [])]
    losses = model(images, samples, mode='loss')
    sum(losses.values()).backward()
    assert losses['loss_bbox'] == 0 and losses['d0.loss_iou'] == 0 and losses['loss_cls'] > 0
    assert model.query_embedding.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('attribute, term', [('class_embed', 'loss_cls'), ('box_embed', 'loss_bbox')])
def test_a_non_finite_loss_names_image_layer_and_term(attribute, term):
    model, (images, samples) = build(tiny_config()), batch()

    def spoil(module, inputs, output):
        output[1, 1] = float('nan')  # layer 1, second image

    getattr(model.bbox_head, attribute).register_forward_hook(spoil)
    with pytest.raises(NonFiniteLossError, match=f'{term} of decoder layer 1 is nan on image image_70x100.png'):
        model(images, samples, mode='loss')


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(num_heads=5), 'embed_dims=32 must be a multiple of num_heads=5'),
        (dict(num_heads=0), 'num_heads=0'),
    ],
)
def test_impossible_heads_are_refused(change, message):
    config = tiny_config()
    config['encoder']['layer'].update(change)
    with pytest.raises(ValueError, match=message):
        MODELS.build(config)
