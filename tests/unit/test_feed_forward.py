"""The feed-forward network against torch's own layers: values, gradients, dropout, initialisation."""

import pytest
import torch
from torch import nn

from mmcondetr.layers.feed_forward import FeedForward, xavier_linear

D, HIDDEN = 16, 40


def network(dropout: float = 0.0, activation: dict | None = None) -> FeedForward:
    torch.manual_seed(0)
    return FeedForward(D, HIDDEN, dropout, activation)


def reference(ours: FeedForward, activation: nn.Module) -> nn.Sequential:
    """torch's layers with our weights."""
    theirs = nn.Sequential(nn.Linear(D, HIDDEN), activation, nn.Linear(HIDDEN, D))
    theirs[0].load_state_dict(ours.linear1.state_dict())
    theirs[2].load_state_dict(ours.linear2.state_dict())
    return theirs


@pytest.mark.parametrize(
    'config, activation',
    [(None, nn.ReLU()), (dict(type='mmengine.GELU'), nn.GELU()), (dict(type='mmengine.PReLU'), nn.PReLU())],
)
@pytest.mark.parametrize('training', [False, True])
def test_values_and_gradients_are_those_of_torchs_layers(config, activation, training):
    ours = network(activation=config).train(training)
    theirs = reference(ours, activation).train(training)
    x = torch.randn(2, 7, D)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [module(value) for module, value in zip((ours, theirs), inputs)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.linear1.weight.grad, theirs[0].weight.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.linear2.weight.grad, theirs[2].weight.grad, rtol=1e-5, atol=1e-5)


def test_every_token_is_transformed_alone():
    ours, x = network().eval(), torch.randn(2, 7, D)
    torch.testing.assert_close(ours(x)[1, 4], ours(x[1, 4]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('activation', [None, dict(type='mmengine.GELU')])
def test_dropout_is_between_the_two_layers_and_in_training_only(activation):
    ours, x = network(0.5, activation), torch.randn(4, D)
    ours.linear2.weight.data.fill_(1.0)
    ours.linear2.bias.data.zero_()
    assert torch.equal(ours.eval()(x), ours(x))
    ours.train()
    hidden = (ours.linear1(x).relu() if activation is None else nn.GELU()(ours.linear1(x))).detach()
    # With weights of one an output is the sum of its token's hidden values: dropout keeps the mean and adds spread.
    drawn = torch.stack([ours(x)[:, 0].detach() for _ in range(400)])
    assert drawn.std(0).min() > 0
    error = drawn.std(0) / 400**0.5
    assert ((drawn.mean(0) - hidden.sum(-1)).abs() < 5 * error).all()


def test_dropout_of_zero_changes_nothing_in_training():
    ours, x = network(0.0), torch.randn(4, D)
    assert torch.equal(ours.train()(x), ours.eval()(x))


def test_xavier_reaches_every_linear_layer_and_nothing_else():
    module = nn.Sequential(network(), nn.LayerNorm(D), nn.Conv2d(3, 4, 1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(1)
    xavier_linear(module)
    for name, value in module.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed == name.endswith(('linear1.weight', 'linear2.weight')), name
    bound = (6 / (D + HIDDEN)) ** 0.5
    for weight in (module[0].linear1.weight, module[0].linear2.weight):
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.9 * bound  # 640 draws: a narrower interval would show
