"""The mask head's inputs besides the queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmdet.structures import SampleList
from torch import Tensor

from mmcondetr.errors import UserError
from mmcondetr.layers.precision import image_name
from mmcondetr.models.attention import Memory


class MaskInputs(NamedTuple):
    """What the mask head gets of a batch of images, besides the queries.

    Attributes:
        projected: (B, D, h, w), the neck's feature map, before the encoder.
        memory: the encoder's output, S = h * w.
        laterals: the backbone's finer feature maps, finest first: (B, C, height / 4, width / 4), ...
    """

    projected: Tensor
    memory: Memory
    laterals: Sequence[Tensor]

    def of_image(self, image: int) -> MaskInputs:
        """One image of the batch, as a batch of one."""
        one = slice(image, image + 1)
        content, position, mask = self.memory
        memory = Memory(
            content[one], position[one] if len(position) > 1 else position, None if mask is None else mask[one]
        )
        return MaskInputs(self.projected[one], memory, [lateral[one] for lateral in self.laterals])


def check_masks(samples: SampleList) -> None:
    """Raise UserError, naming the image, if there are no masks to train with."""
    for image, sample in enumerate(samples):
        if 'masks' not in sample.gt_instances:
            raise UserError(
                f'{image_name(samples, image)}: there are no masks to train the mask head with. The training pipeline '
                'needs mmdet.LoadAnnotations(with_bbox=True, with_mask=True) or mmcondetr.LoadPanoptic.'
            )
