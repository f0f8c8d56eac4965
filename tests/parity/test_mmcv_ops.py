"""Against the compiled ops of the full mmcv, where they are; skipped with mmcv-lite. The lane ``full-mmcv`` runs it.

mmcv has focal loss and deformable attention as CUDA kernels only. On a CPU deformable attention is compared with what
mmcv does have compiled and that samples in the same way: a modulated deformable convolution with a kernel of 1 x 1 and
the weights of an identity.
"""

from __future__ import annotations

import sys

import mmcv  # noqa: F401  (else nothing stands in for its extension yet)
import numpy as np
import pytest
import torch

from mmcondetr.compat import mmcv_ops, mmcv_stand_in
from mmcondetr.inference.tiles import SAME, merge_tiles

pytestmark = pytest.mark.skipif(
    isinstance(sys.modules.get('mmcv._ext'), mmcv_stand_in._MMCVExtStandIn), reason='mmcv-lite has no compiled ops'
)


def sampled_by_mmcv(
    value: torch.Tensor, height: int, width: int, locations: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Deformable attention over one level by deformable convolutions: each point of each head is one.

    Args:
        value: (B, height * width, H, C).
        locations: (B, height * width, H, 1, P, 2), xy as fractions of the map.
        weights: (B, height * width, H, 1, P).

    Returns:
        (B, height * width, H * C).
    """
    from mmcv.ops import modulated_deform_conv2d

    images, _, heads, channels = value.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    identity = torch.eye(channels, dtype=value.dtype)[:, :, None, None]
    outputs = []
    for head in range(heads):
        plane = value[:, :, head].transpose(1, 2).reshape(images, channels, height, width).contiguous()
        total = 0
        for point in range(locations.size(4)):
            x, y = (locations[:, :, head, 0, point, axis].reshape(images, height, width) for axis in (0, 1))
            offset = torch.stack([y * height - 0.5 - rows, x * width - 0.5 - columns], dim=1)  # (B, 2, h, w)
            mask = weights[:, :, head, 0, point].reshape(images, 1, height, width)
            total = total + modulated_deform_conv2d(
                plane, offset.contiguous(), mask.contiguous(), identity, None, 1, 0, 1, 1, 1
            )
        outputs.append(total.flatten(2).transpose(1, 2))
    return torch.cat(outputs, dim=2)


def test_deformable_attention_against_the_compiled_deformable_convolution():
    generator = torch.Generator().manual_seed(0)
    height, width, heads, points = 5, 7, 2, 3
    value = torch.randn(2, height * width, heads, 8, generator=generator)
    locations = (
        torch.rand(2, height * width, heads, 1, points, 2, generator=generator) * 1.4 - 0.2
    )  # beyond the map, too
    weights = torch.rand(2, height * width, heads, 1, points, generator=generator)
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    expected = sampled_by_mmcv(value, height, width, locations, weights)
    shapes, start = torch.tensor([[height, width]]), torch.tensor([0])
    found = mmcv_ops.ms_deform_attn_forward(value, shapes, start, locations, weights, 64)
    assert found.shape == expected.shape and expected.std() > 0.3
    assert torch.allclose(found, expected, atol=1e-5), (found - expected).abs().max()
    direction = torch.randn(found.shape, generator=generator)
    gradients = [torch.zeros_like(tensor) for tensor in inputs]
    mmcv_ops.ms_deform_attn_backward(
        value.detach(), shapes, start, locations.detach(), weights.detach(), direction, *gradients, 64
    )
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, inputs, direction)):
        assert theirs.abs().max() > 0.1
        assert torch.allclose(ours, theirs, atol=1e-4), (ours - theirs).abs().max()


@pytest.mark.parametrize('seed', range(5))
def test_merging_of_tiles_against_the_compiled_nms(seed):
    """With every box from a tile of its own and none cut, merging is non-maximum suppression by class."""
    from mmcv.ops import batched_nms

    generator = np.random.default_rng(seed)
    corner, size = generator.uniform(0, 100, (300, 2)), generator.uniform(5, 60, (300, 2))
    boxes, scores = np.hstack([corner, corner + size]), generator.permutation(300) / 300
    labels = generator.integers(0, 3, 300)
    kept = merge_tiles(boxes, scores, labels, np.arange(300), np.zeros(300, dtype=bool))
    tensors = torch.from_numpy(boxes).float(), torch.from_numpy(scores).float(), torch.from_numpy(labels)
    _, expected = batched_nms(*tensors, dict(type='nms', iou_threshold=SAME))
    assert 50 < len(kept) < 280
    assert kept.tolist() == expected.tolist()


@pytest.mark.cuda
@pytest.mark.parametrize('weighted', [False, True])
def test_focal_loss_against_the_kernel(weighted):
    from mmcv.ops import sigmoid_focal_loss

    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(40, 7, generator=generator) * 3).cuda().requires_grad_()
    target = torch.randint(0, 7, (40,), generator=generator).cuda()
    weight = torch.rand(7, generator=generator).cuda() if weighted else None
    expected = sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'none')
    empty = logits.new_empty(0) if weight is None else weight
    found, gradient = torch.empty_like(logits), torch.empty_like(logits)
    mmcv_ops.sigmoid_focal_loss_forward(logits.detach(), target, empty, found, 2.0, 0.25)
    mmcv_ops.sigmoid_focal_loss_backward(logits.detach(), target, empty, gradient, 2.0, 0.25)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(gradient, torch.autograd.grad(expected.sum(), logits)[0], atol=1e-5)


@pytest.mark.cuda
def test_deformable_attention_against_the_kernel():
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    generator = torch.Generator().manual_seed(0)
    shapes, start = torch.tensor([[6, 4], [3, 2]]).cuda(), torch.tensor([0, 24]).cuda()
    value = torch.randn(2, 30, 2, 8, generator=generator).cuda()
    locations = torch.rand(2, 5, 2, 2, 4, 2, generator=generator).cuda()
    weights = torch.rand(2, 5, 2, 2, 4, generator=generator).cuda()
    expected = MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)
    found = mmcv_ops.ms_deform_attn_forward(value, shapes, start, locations, weights, 64)
    assert torch.allclose(found, expected, atol=1e-5)


def test_there_is_nothing_else_to_compare_with_on_a_cpu():
    """Fails as soon as mmcv has these for a CPU: then compare with them directly."""
    from mmcv.ops import sigmoid_focal_loss

    with pytest.raises(RuntimeError, match='implementation for device cpu not found'):
        sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), 2.0, 0.25, None, 'none')
