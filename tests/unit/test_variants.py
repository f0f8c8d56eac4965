"""What every ablation and DAB-DETR must do, whoever adds it: learn two images, and leave no parameter untrained."""

import pytest
import torch
from tiny_model import batch, build, is_silent
from tiny_variants import VARIANTS, tiny_variant

MOST_STEPS = 600
# The first layer's contents are zero: all values are alike, and queries and keys do not matter. One tensor in DETR's.
ADDITIVE_SILENT = {'decoder.layers.0.self_attn.in_proj.weight'}


@pytest.fixture(params=VARIANTS, ids=lambda path: path.stem.split('_8x')[0])
def config(request):
    return tiny_variant(request.param)


def test_every_parameter_has_a_gradient_and_only_documented_ones_are_zero(config):
    """In float64, where zero by construction is 1e-16 of the largest gradient, and a small one is not."""
    model, (images, samples) = build(config).double().train(), batch()
    sum(model(images.double(), samples, mode='loss').values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    largest = {name: gradient.abs().max().item() for name, gradient in gradients.items()}
    silent = {name for name, value in largest.items() if value < 1e-12 * max(largest.values())}
    assert {name for name in silent if not is_silent(name)} <= ADDITIVE_SILENT


@pytest.mark.slow
def test_overfits_two_images(config):
    """From the real initialisation: the loss falls below a third, with some variants later than with others."""
    model, (images, samples) = build(config), batch()
    torch.manual_seed(0)
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    while len(losses) < MOST_STEPS and (not losses or losses[-1] >= losses[0] / 3):
        loss = sum(model(images, samples, mode='loss').values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3, losses


def test_predicts_with_padding(config):
    model, (images, samples) = build(config), batch()
    results = model(images, samples, mode='predict')
    for result in results:
        assert len(result.pred_instances) == 20
        assert result.pred_instances.bboxes.isfinite().all()
        assert ((result.pred_instances.labels >= 0) & (result.pred_instances.labels < 5)).all()
