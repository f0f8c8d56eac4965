"""The linear layer through oneDNN: results and gradients of nn.Linear, and a convolution only where it pays."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmcondetr.layers import linear as module_under_test
from mmcondetr.layers.linear import Linear, linear

needs_both_libraries = pytest.mark.skipif(not module_under_test._BOTH_LIBRARIES, reason='torch without MKL or oneDNN')


class Calls(TorchDispatchMode):
    """The names of the aten operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def layer(channels, outputs, dtype=torch.float32):
    torch.manual_seed(0)
    return Linear(channels, outputs).to(dtype)


def convolves(module, x):
    with Calls() as calls, torch.no_grad():
        module(x)
    return 'convolution' in calls.names


@needs_both_libraries
@pytest.mark.parametrize('shape', [(2, 250, 256), (1, 3350, 64), (600, 256), (250, 2, 256)])
def test_results_and_gradients_are_those_of_nn_linear(shape):
    ours = layer(shape[-1], 128)
    x = torch.randn(shape, requires_grad=True)
    theirs = x.detach().clone().requires_grad_()
    out, expected = ours(x), F.linear(theirs, ours.weight, ours.bias)
    assert convolves(ours, x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    gradient = torch.randn_like(out)
    found = torch.autograd.grad(out, (x, ours.weight, ours.bias), gradient)
    wanted = torch.autograd.grad(expected, (theirs, ours.weight, ours.bias), gradient)
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@needs_both_libraries
def test_tokens_that_are_not_contiguous():
    ours = layer(256, 256)
    x = torch.randn(1, 256, 25, 34).flatten(2).transpose(1, 2)
    assert convolves(ours, x)
    torch.testing.assert_close(ours(x), F.linear(x, ours.weight, ours.bias), rtol=1e-5, atol=1e-5)


def test_nothing_is_copied_on_the_way():
    with Calls() as calls, torch.no_grad():
        linear(torch.randn(1, 850, 256), torch.randn(256, 256), torch.randn(256))
    assert not {'clone', 'copy_', '_to_copy', 'contiguous'} & set(calls.names)


@pytest.mark.parametrize(
    'x, module',
    [
        (torch.randn(1, 30, 128), layer(128, 128)),
        (torch.randn(1, 850, 256, dtype=torch.float64), layer(256, 256, torch.float64)),
        (torch.randn(0, 850, 256), layer(256, 256)),
    ],
    ids=['small', 'float64', 'empty'],
)
def test_where_a_convolution_would_not_pay_it_is_nn_linear(x, module):
    assert not convolves(module, x)
    torch.testing.assert_close(module(x), F.linear(x, module.weight, module.bias), rtol=0, atol=0)


def test_without_both_libraries_it_is_nn_linear(monkeypatch):
    monkeypatch.setattr(module_under_test, '_BOTH_LIBRARIES', False)
    assert not convolves(layer(256, 256), torch.randn(1, 850, 256))


def test_parameters_and_initial_values_are_those_of_nn_linear():
    torch.manual_seed(0)
    theirs = torch.nn.Linear(256, 128).state_dict()
    ours = layer(256, 128).state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0)
