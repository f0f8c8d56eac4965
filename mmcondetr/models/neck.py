"""The neck: one 1 x 1 convolution from the backbone's channels to the transformer's."""

from mmdet.models.necks import ChannelMapper
from torch import nn

from mmcondetr.registry import MODELS


@MODELS.register_module()
class InputProjection(ChannelMapper):
    """mmdet's ChannelMapper, initialised as the authors' ``input_proj``: PyTorch's default for a convolution.

    Weight and bias are uniform within +-1 / sqrt(input channels), 0.022 for 2048 channels; ChannelMapper's Xavier
    initialisation gives 0.051 and a bias of zero. Arguments and parameter names are mmdet's.

    Paper: the authors' code of DETR, Conditional DETR and DAB-DETR.
    """

    def init_weights(self) -> None:
        """PyTorch's default initialisation for every convolution."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
