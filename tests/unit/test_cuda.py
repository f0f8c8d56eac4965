"""On a GPU: the small model's values and gradients equal a CPU's, in reduced precision, compiled, and with masks."""

import copy

import pytest
import torch
from tiny_masks import masked_batch, with_masks
from tiny_model import batch, build, is_silent, tiny_config

from mmcondetr.models.masks.panoptic_merging import PanopticMerging

pytestmark = pytest.mark.cuda
DARKER = 50
"""With images of the full range these weights, which are no trained ones, exceed float16's largest number."""


@pytest.fixture(autouse=True)
def _no_tf32():
    # Not by monkeypatch: these attributes are computed, and it would try to delete them afterwards.
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield
    for place, value in zip(places, before):
        place.allow_tf32 = value


def on(device: str, model: torch.nn.Module, data=batch):
    images, samples = data()
    return copy.deepcopy(model).to(device), images.to(device), [sample.to(device) for sample in samples]


def test_outputs_are_those_of_a_cpu(cuda):
    model = build(tiny_config())
    results = []
    for device in ('cpu', cuda):
        there, images, samples = on(device, model)
        with torch.no_grad():
            results.append([part.cpu() for part in there(images, samples, mode='tensor')])
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-4)


def compare_training(model: torch.nn.Module, data, cuda: str) -> None:
    """Losses and gradients of one step on both devices."""
    results = []
    for device in ('cpu', cuda):
        there, images, samples = on(device, model, data)
        losses = there.loss(images, samples)
        sum(losses.values()).backward()
        results.append((losses, dict(there.named_parameters())))
    for name, value in results[0][0].items():
        torch.testing.assert_close(results[1][0][name].cpu(), value, rtol=1e-3, atol=1e-4)
    for name, parameter in results[0][1].items():
        if not is_silent(name):
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(results[1][1][name].grad.cpu(), parameter.grad, rtol=1e-2, atol=1e-2 * scale)


def test_losses_and_gradients_are_those_of_a_cpu(cuda):
    compare_training(build(tiny_config()), batch, cuda)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_training_step_in_mixed_precision_is_finite(dtype, cuda):
    model, images, samples = on(cuda, build(tiny_config()).train())
    with torch.autocast(cuda, dtype):
        losses = model.loss(images / DARKER, samples)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_prediction_of_a_padded_batch(cuda):
    model, images, samples = on(cuda, build(tiny_config()))
    with torch.no_grad():
        found = model.predict(images, samples)
    assert all(sample.pred_instances.bboxes.device.type == cuda for sample in found)
    assert [len(sample.pred_instances) for sample in found] == [20, 20]


def test_the_compiled_transformer_agrees(cuda):
    model = build(tiny_config()).to(cuda)
    features = torch.randn(2, 32, 3, 4, device=cuda)
    torch._dynamo.reset()
    backend = 'inductor' if cuda == 'cuda' else 'aot_eager'  # a machine may have no compiler
    with torch.no_grad():
        found = torch.compile(model.forward_transformer, fullgraph=True, backend=backend)(features, None)
        expected = model.forward_transformer(features, None)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_losses_and_gradients_of_masks_are_those_of_a_cpu(cuda):
    compare_training(build(with_masks(tiny_config())), masked_batch, cuda)


def test_predicted_masks_are_those_of_a_cpu(cuda):
    model = build(with_masks(tiny_config()))
    results = []
    for device in ('cpu', cuda):
        there, images, samples = on(device, model)
        with torch.no_grad():
            found = [sample.pred_instances for sample in there.predict(images, samples)]
        assert all(
            result.masks.device.type == result.bboxes.device.type == torch.device(device).type for result in found
        )
        results.append(found)
    for expected, found in zip(*results):
        assert found.masks.dtype == torch.bool and found.masks.shape == expected.masks.shape
        # By query and class, as scores that are nearly equal may change places.
        order, theirs = ((r.queries * 100 + r.labels).cpu().argsort() for r in (expected, found))
        assert torch.equal(expected.queries[order], found.queries.cpu()[theirs])
        assert (expected.masks[order] != found.masks.cpu()[theirs]).float().mean() < 1e-3
        assert 0 < found.masks.float().mean() < 1


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_training_step_of_masks_in_mixed_precision_is_finite(dtype, cuda):
    model, images, samples = on(cuda, build(with_masks(tiny_config())).train(), masked_batch)
    with torch.autocast(cuda, dtype):
        losses = model.loss(images / DARKER, samples)
    sum(losses.values()).backward()
    assert {'loss_mask', 'loss_dice'} <= set(losses) and all(value.isfinite() for value in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.mask_head.parameters())


@pytest.mark.parametrize('overlap', [None, 0.2])
def test_panoptic_maps_are_those_of_a_cpu(overlap, cuda):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(12, 40, 30, generator=generator), torch.randint(0, 6, (12,), generator=generator)
    scores = torch.rand(12, generator=generator)
    merging = PanopticMerging(num_classes=6, num_things=3, min_area=45, overlap=overlap)
    expected = merging.merge(logits, labels, scores)
    assert len(expected.unique()) > 4
    assert torch.equal(merging.merge(logits.to(cuda), labels.to(cuda), scores.to(cuda)).cpu(), expected)
