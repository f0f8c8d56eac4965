"""Spatial queries (Table 3) and transforms (Figure 5): what each computes, and where two of them must agree."""

import pytest
import torch

import mmcondetr  # noqa: F401
from mmcondetr.registry import MODELS

D, H, N = 32, 4, 6
HEADS = D // H
VALUES = dict(Identity=0, Single=1, Diagonal=D, Block=D * D // H, Full=D * D)


def transform(name: str):
    return MODELS.build(dict(type=f'mmcondetr.{name}Transform', embed_dims=D, num_heads=H))


def head(name: str, **arguments):
    torch.manual_seed(0)
    return MODELS.build(dict(type=f'mmcondetr.{name}', embed_dims=D, num_heads=H, **arguments))


@pytest.fixture
def p_s():
    return torch.randn(2, N, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def values():
    return torch.randn(2, N, D, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def inputs():
    """f, c_q and p_s, all different."""
    return torch.randn(3, 2, N, D, generator=torch.Generator().manual_seed(3)).unbind()


@pytest.mark.parametrize('name', VALUES)
def test_number_of_values_and_shape(name, p_s):
    module = transform(name)
    assert module.num_values == VALUES[name]
    assert module(torch.ones(2, N, VALUES[name]), p_s).shape == p_s.shape


def test_diagonal_scales_every_channel(p_s, values):
    assert torch.equal(transform('Diagonal')(values, p_s), values * p_s)


def test_single_equals_diagonal_with_one_value(p_s, values):
    one = values[..., :1]
    assert torch.equal(transform('Single')(one, p_s), transform('Diagonal')(one.expand(-1, -1, D), p_s))


def test_block_with_diagonal_blocks_equals_diagonal(p_s, values):
    blocks = torch.diag_embed(values.unflatten(-1, (H, HEADS))).flatten(2)
    assert torch.allclose(transform('Block')(blocks, p_s), values * p_s, rtol=0, atol=1e-6)


def test_full_with_zero_off_diagonal_equals_diagonal(p_s, values):
    matrix = torch.diag_embed(values).flatten(2)
    assert torch.allclose(transform('Full')(matrix, p_s), values * p_s, rtol=0, atol=1e-6)


def test_full_with_blocks_on_the_diagonal_equals_block(p_s):
    blocks = torch.randn(2, N, H, HEADS, HEADS)
    matrix = torch.zeros(2, N, D, D)
    for index in range(H):
        here = slice(index * HEADS, (index + 1) * HEADS)
        matrix[..., here, here] = blocks[:, :, index]
    full, block = transform('Full')(matrix.flatten(2), p_s), transform('Block')(blocks.flatten(2), p_s)
    assert torch.allclose(full, block, rtol=0, atol=1e-5)


def test_full_multiplies_by_the_matrix_row_by_row(p_s):
    """Not by its transpose, which no diagonal would show."""
    matrix = torch.randn(2, N, D, D)
    expected = torch.einsum('bnij,bnj->bni', matrix, p_s)
    assert torch.allclose(transform('Full')(matrix.flatten(2), p_s), expected, rtol=0, atol=1e-4)


def test_identity_equals_csq_p(inputs):
    identity = head('ConditionalSpatialQueryHead', transform=dict(type='mmcondetr.IdentityTransform'))
    assert sum(parameter.numel() for parameter in identity.parameters()) == 0
    assert torch.equal(identity(*inputs), head('PositionSpatialQuery')(*inputs))


def test_what_each_source_computes(inputs):
    f, c_q, p_s = inputs
    predicted = head('ConditionalSpatialQueryHead').predictor  # the same seed gives all three the same weights
    assert torch.equal(head('ConditionalSpatialQueryHead')(f, c_q, p_s), predicted(f) * p_s)
    assert torch.equal(head('SelfAttentionSpatialQueryHead')(f, c_q, p_s), predicted(c_q) * p_s)
    assert torch.equal(head('TransformSpatialQuery')(f, c_q, p_s), predicted(f))
    assert torch.equal(head('PositionSpatialQuery')(f, c_q, p_s), p_s)
    assert torch.equal(head('ContentSpatialQuery')(f, c_q, p_s), f)


@pytest.mark.parametrize('name', VALUES)
def test_every_transform_trains_its_predictor(name, inputs):
    module = head('ConditionalSpatialQueryHead', transform=dict(type=f'mmcondetr.{name}Transform'))
    f = inputs[0].clone().requires_grad_()
    output = module(f, *inputs[1:])
    assert output.shape == (2, N, D)
    if VALUES[name]:
        output.square().sum().backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
        assert f.grad.abs().max() > 0
    else:
        assert not output.requires_grad


def test_block_needs_channels_that_heads_divide():
    with pytest.raises(ValueError, match='embed_dims=30 must be a multiple of num_heads=4'):
        MODELS.build(dict(type='mmcondetr.BlockTransform', embed_dims=30, num_heads=4))
