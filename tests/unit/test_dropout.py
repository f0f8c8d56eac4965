"""Dropout from a seed: right probabilities, gradients of what was kept, nothing kept but the result."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from mmcondetr.layers.dropout import Dropout
from mmcondetr.layers.feed_forward import FeedForward


@pytest.mark.parametrize('probability', [0.1, 0.5])
def test_the_share_of_dropped_elements_and_their_scale(probability):
    torch.manual_seed(0)
    x = torch.rand(400, 257) + 0.5
    dropped = Dropout(probability).train()(x)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept] / (1 - probability), rtol=1e-4, atol=0)
    # 102,800 independent draws: a standard deviation of at most 0.0016; five of them are allowed.
    assert abs(1 - kept.float().mean().item() - probability) < 0.008


def test_the_gradient_passes_where_the_element_did():
    torch.manual_seed(0)
    x = torch.randn(50, 40, requires_grad=True)
    dropped = Dropout(0.3).train()(x)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    torch.testing.assert_close(gradient * x, dropped)
    assert (gradient == 0).any()


def test_after_relu_is_relu_then_dropout():
    module = Dropout(0.3).train()
    x = torch.randn(60, 50, requires_grad=True)
    torch.manual_seed(1)
    ours = module.after_relu(x * 1)
    torch.manual_seed(1)
    separate = module(F.relu(x))
    assert torch.equal(ours, separate)
    weights = torch.randn_like(ours)
    (a,) = torch.autograd.grad((ours * weights).sum(), x)
    (b,) = torch.autograd.grad((separate * weights).sum(), x)
    torch.testing.assert_close(a, b)


def test_the_seed_decides_and_evaluation_drops_nothing():
    module, x = Dropout(0.5), torch.randn(30, 30)
    first, second = (torch.manual_seed(3), module(x))[1], (torch.manual_seed(3), module(x))[1]
    assert torch.equal(first, second) and not torch.equal(first, module(x))
    module.eval()
    assert torch.equal(module(x), x)
    assert torch.equal(module.after_relu(x.clone()), x.relu())


def test_a_feed_forward_network_keeps_its_hidden_layer_once():
    network = FeedForward(8, 512, 0.1).train()
    x = torch.randn(100, 8, requires_grad=True)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x)
    hidden = 100 * 512 * 4
    assert sum(size == hidden for size, _ in kept.values()) == 1
