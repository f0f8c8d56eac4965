"""On a GPU: the small model's values and gradients equal a CPU's, also in float16 and bfloat16, and compiled."""

import copy

import pytest
import torch
from tiny_model import batch, build, is_silent, tiny_config

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def on(device: str, model: torch.nn.Module):
    images, samples = batch()
    return copy.deepcopy(model).to(device), images.to(device), [sample.to(device) for sample in samples]


def test_outputs_are_those_of_a_cpu():
    model = build(tiny_config())
    results = []
    for device in ('cpu', 'cuda'):
        there, images, samples = on(device, model)
        with torch.no_grad():
            results.append([part.cpu() for part in there(images, samples, mode='tensor')])
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-4)


def test_losses_and_gradients_are_those_of_a_cpu():
    model = build(tiny_config())
    results = []
    for device in ('cpu', 'cuda'):
        there, images, samples = on(device, model)
        losses = there.loss(images, samples)
        sum(losses.values()).backward()
        results.append((losses, dict(there.named_parameters())))
    for name, value in results[0][0].items():
        torch.testing.assert_close(results[1][0][name].cpu(), value, rtol=1e-3, atol=1e-4)
    for name, parameter in results[0][1].items():
        if not is_silent(name):
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(results[1][1][name].grad.cpu(), parameter.grad, rtol=1e-2, atol=1e-2 * scale)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_training_step_in_mixed_precision_is_finite(dtype):
    model, images, samples = on('cuda', build(tiny_config()).train())
    with torch.autocast('cuda', dtype):
        losses = model.loss(images, samples)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_prediction_of_a_padded_batch():
    model, images, samples = on('cuda', build(tiny_config()))
    with torch.no_grad():
        found = model.predict(images, samples)
    assert all(sample.pred_instances.bboxes.is_cuda and len(sample.pred_instances) == 20 for sample in found)


def test_the_compiled_transformer_agrees():
    model = build(tiny_config()).cuda()
    features = torch.randn(2, 32, 3, 4, device='cuda')
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch.compile(model.forward_transformer, fullgraph=True)(features, None)
        expected = model.forward_transformer(features, None)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
