"""The switch with_cp of backbone, encoder and decoder: the same losses and gradients with fewer stored activations."""

import pytest
import torch
from tiny_model import batch, build, tiny_config
from torch.autograd.graph import saved_tensors_hooks


def run(parts):
    config = tiny_config()
    config['backbone']['type'] = 'mmcondetr.ResNet'
    for part in parts:
        config[part]['with_cp'] = True
    model = build(config).train()
    images, samples = batch()
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    torch.manual_seed(5)  # the dropout's
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = sum(model(images, samples, mode='loss').values())
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, sum(size for size, _ in kept.values())


@pytest.mark.parametrize('part', ['backbone', 'encoder', 'decoder'])
def test_recomputing_changes_memory_and_nothing_else(part):
    loss, gradients, kept = run([])
    lean_loss, lean_gradients, lean_kept = run([part])
    assert lean_loss == pytest.approx(loss, rel=1e-6)
    assert lean_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(lean_gradients[name], gradient, rtol=1e-4, atol=1e-4 * gradient.abs().max().item())
    assert lean_kept < kept
