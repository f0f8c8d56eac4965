"""The embedding of points against the formula, written number by number, and against mmdet's for the memory."""

import math

import pytest
import torch
from mmdet.models.layers import SinePositionalEncoding

from mmcondetr.models.positional import sine_embed


def wave(coordinate: float, channel: int, channels: int, temperature: float) -> float:
    """One channel of one coordinate, as Vaswani et al. (2017, §3.5) write it, on a coordinate of period 1."""
    pair = channel // 2
    angle = 2 * math.pi * coordinate / temperature ** (2 * pair / channels)
    return math.sin(angle) if channel % 2 == 0 else math.cos(angle)


def expected(coordinates: list[float], embed_dims: int, temperature: float = 10000.0) -> list[float]:
    """The whole embedding of one point (x, y) or box (cx, cy, w, h): y, x and then, of a box, w, h."""
    x, y, *size = coordinates
    half = embed_dims // 2
    return [wave(value, channel, half, temperature) for value in (y, x, *size) for channel in range(half)]


@pytest.mark.parametrize('embed_dims', [4, 32, 256])
@pytest.mark.parametrize('coordinates', [[0.0, 0.0], [0.3, 0.8], [1.0, 0.01], [0.2, 0.9, 0.5, 0.05]])
def test_every_channel_follows_the_formula(coordinates, embed_dims):
    embedded = sine_embed(torch.tensor(coordinates), embed_dims)
    assert embedded.shape == (embed_dims * len(coordinates) // 2,)
    torch.testing.assert_close(embedded, torch.tensor(expected(coordinates, embed_dims)), rtol=0, atol=2e-6)


def test_another_temperature():
    torch.testing.assert_close(
        sine_embed(torch.tensor([0.3, 0.8]), 32, 20.0), torch.tensor(expected([0.3, 0.8], 32, 20.0)), rtol=0, atol=2e-6
    )


def test_a_reference_point_on_a_token_has_the_tokens_embedding():
    """mmdet's normalised encoding of a grid counts rows from 1 to h, and divides by h + 1e-6: token i is at (i+1)/h."""
    height, width = 5, 7
    grid = SinePositionalEncoding(num_feats=16, normalize=True)(torch.zeros(1, height, width, dtype=torch.bool))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    points = torch.stack(((columns + 1) / width, (rows + 1) / height), dim=-1)
    torch.testing.assert_close(sine_embed(points, 32), grid[0].permute(1, 2, 0), rtol=0, atol=1e-5)


def test_leading_dimensions_stay_and_each_point_is_embedded_alone():
    points = torch.rand(2, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    embedded = sine_embed(points, 32)
    assert embedded.shape == (2, 3, 5, 32)
    assert torch.equal(embedded[1, 2, 4], sine_embed(points[1, 2, 4], 32))


@pytest.mark.parametrize('size', [2, 4])
def test_the_gradient_is_finite_and_that_of_the_formula(size):
    points = torch.rand(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).float()
    points[0] = 0.0
    points[1] = 1.0
    points.requires_grad_()
    weight = torch.linspace(-1, 1, 32 * size // 2)
    (sine_embed(points, 32) * weight).sum().backward()
    assert points.grad.isfinite().all()
    step = 1e-6
    for index in range(3):
        for axis in range(size):
            ends = []
            for sign in (1, -1):
                moved = points[index].tolist()
                moved[axis] += sign * step
                values = expected(moved, 32)
                ends.append(sum(value * factor for value, factor in zip(values, weight.tolist())))
            slope = (ends[0] - ends[1]) / (2 * step)
            assert math.isclose(points.grad[index, axis].item(), slope, rel_tol=1e-3, abs_tol=1e-3)


def test_half_precision_is_embedded_in_float32():
    """A bfloat16 coordinate is exact to 1/256 near 1, but its wave must not be rounded once more."""
    points = torch.tensor([[0.25, 0.75]], dtype=torch.bfloat16)
    assert torch.equal(sine_embed(points, 32), sine_embed(points.float(), 32))


@pytest.mark.parametrize(
    'shape, embed_dims, message', [((3, 2), 30, 'multiple of 4, got 30'), ((3, 3), 32, r'got shape \(3, 3\)')]
)
def test_impossible_shapes(shape, embed_dims, message):
    with pytest.raises(ValueError, match=message):
        sine_embed(torch.zeros(shape), embed_dims)
