"""The compiled mmcv ops that a DETR needs on a GPU, implemented in PyTorch for mmcv-lite.

On a CPU, mmdet uses its own PyTorch implementations. On CUDA, its ``FocalLoss`` and ``MultiScaleDeformableAttention``
only call ``mmcv._ext``, where :mod:`mmcondetr.compat` therefore adds these functions. They have the signatures of the
compiled ops, which write results and gradients into given tensors. They are slower but compute the same values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _focal_loss(logits: Tensor, target: Tensor, class_weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Focal loss of each of ``logits`` (N, C) for class indices ``target`` (N,); an index of C means background."""
    one_hot = F.one_hot(target, logits.size(1) + 1)[:, :-1].to(logits.dtype)  # (N, C)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, one_hot, reduction='none')
    probability = logits.sigmoid()
    wrongness = probability * (1 - one_hot) + (1 - probability) * one_hot
    balance = alpha * one_hot + (1 - alpha) * (1 - one_hot)
    loss = balance * wrongness**gamma * cross_entropy
    if len(class_weight) == 0:
        return loss
    return loss * class_weight.to(logits.dtype)[target.clamp(max=logits.size(1) - 1), None]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of each of ``input`` (N, C) into ``output``; ``weight`` is (C,) by class, or empty."""
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each loss with respect to its logit into ``grad_input`` (N, C)."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, logits)[0])


def _deformable_attention(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations, weights)


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention of ``value`` (B, S, H, D / H); returns (B, N, D)."""
    return _deformable_attention(value, spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of ``value``, ``sampling_locations`` and ``attention_weights`` into the ``grad_`` tensors."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
        output = _deformable_attention(inputs[0], spatial_shapes, *inputs[1:])
    gradients = torch.autograd.grad(output, inputs, grad_output)
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        target.copy_(gradient)


OPS = {
    function.__name__: function
    for function in (
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
    )
}
