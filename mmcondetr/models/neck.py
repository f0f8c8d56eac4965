"""The neck: one 1 x 1 convolution from the backbone's channels to the transformer's."""

from mmdet.models.necks import ChannelMapper
from torch import nn

from mmcondetr.registry import MODELS


@MODELS.register_module()
class InputProjection(ChannelMapper):
    """mmdet's ChannelMapper, initialised as the authors' ``input_proj``: PyTorch's default for a convolution.

    Weight and bias are uniform within 1 / sqrt(inputs): 0.022 for 2048 channels, where ChannelMapper's Xavier gives
    0.051 and a bias of zero. Arguments are mmdet's; the names in a checkpoint, too.

    Paper: the authors' code (DETR's, Conditional DETR's and DAB-DETR's alike).
    """

    def init_weights(self) -> None:
        """PyTorch's default for every convolution."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
