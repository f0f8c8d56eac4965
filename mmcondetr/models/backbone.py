"""The DC5 backbone: a ResNet whose last stage keeps the resolution of the stage before (stride 16 instead of 32)."""

from collections.abc import Sequence
from typing import Optional

from mmdet.models.backbones import ResNet

from mmcondetr.registry import MODELS


@MODELS.register_module()
class ResNetDC5(ResNet):
    """torchvision's ``replace_stride_with_dilation=[False, False, True]``, with mmdet's parameter names.

    The last stage has stride 1 and dilation 2, except for its first block, which keeps the dilation of the stage
    before, 1. ``mmdet.ResNet(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))`` dilates the first block too: weights
    that were trained with torchvision's rule (all DC5 models of DETR's authors and of their successors) load there
    without a word and are wrong.

    Args:
        depth: 50, 101 or 152.
        num_stages: 4; the dilated stage is the fourth.
        out_indices: stages whose feature maps are returned.
        frozen_stages: stem and stages up to this one are frozen; -1 trains all.
        norm_cfg: config of the normalisation.
        norm_eval: keep the running statistics of BatchNorm.
        style: 'pytorch': the stride is in the 3x3 convolution.
        with_cp: recompute the blocks' activations in the backward pass to save memory.
        init_cfg: where the weights come from.

    Raises:
        ValueError: for a depth whose blocks cannot be dilated, or other than four stages.
    """

    def __init__(self,
                 depth: int,
                 num_stages: int = 4,
                 out_indices: Sequence[int] = (3, ),
                 frozen_stages: int = -1,
                 norm_cfg: Optional[dict] = None,
                 norm_eval: bool = True,
                 style: str = 'pytorch',
                 with_cp: bool = False,
                 init_cfg: Optional[dict] = None) -> None:
        if depth not in (50, 101, 152):
            raise ValueError(f'ResNetDC5: depth must be 50, 101 or 152 (bottleneck blocks), got {depth}')
        if num_stages != 4:
            raise ValueError(f'ResNetDC5: num_stages must be 4, the dilated stage is the fourth; got {num_stages}')
        super().__init__(
            depth,
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_cfg=norm_cfg or dict(type='BN', requires_grad=True),
            norm_eval=norm_eval,
            style=style,
            with_cp=with_cp,
            init_cfg=init_cfg)
        first = self.layer4[0].conv2
        first.dilation, first.padding = (1, 1), (1, 1)
