"""The input projection starts as PyTorch's default convolution, as in the authors' code, and is mmdet's otherwise."""

import math

import pytest
import torch
from mmdet.models.necks import ChannelMapper

from mmcondetr.models.backbone import InputProjection

ARGUMENTS = dict(in_channels=[512], kernel_size=1, out_channels=64, act_cfg=None, norm_cfg=None, num_outs=1)


def test_weight_and_bias_start_as_a_plain_convolutions():
    torch.manual_seed(0)
    neck = InputProjection(**ARGUMENTS)
    neck.init_weights()
    bound = 1 / math.sqrt(512)
    for values in neck.convs[0].conv.weight, neck.convs[0].conv.bias:
        assert 0.9 * bound < values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)  # uniform
    torch.manual_seed(3)
    neck.init_weights()
    torch.manual_seed(3)
    plain = torch.nn.Conv2d(512, 64, 1)
    assert torch.equal(neck.convs[0].conv.weight, plain.weight) and torch.equal(neck.convs[0].conv.bias, plain.bias)


def test_names_and_outputs_are_mmdets():
    ours, theirs = InputProjection(**ARGUMENTS), ChannelMapper(**ARGUMENTS)
    theirs.load_state_dict(ours.state_dict())
    features = torch.randn(2, 512, 3, 4)
    assert torch.equal(ours((features,))[0], theirs((features,))[0])
