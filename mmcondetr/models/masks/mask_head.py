"""The mask head: attention maps of a few queries, refined step by step with the backbone's feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.structures import SampleList
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from mmcondetr.layers.precision import check_finite, full_precision, image_name
from mmcondetr.models.masks.mask_attention import MaskAttention
from mmcondetr.models.masks.mask_checks import check_widths
from mmcondetr.models.masks.mask_inputs import MaskInputs, check_masks
from mmcondetr.models.masks.mask_losses import dice_loss, focal_loss
from mmcondetr.models.masks.mask_sizes import finish, pad, resize
from mmcondetr.models.masks.panoptic_merging import PanopticMerging
from mmcondetr.models.matching import Matches
from mmcondetr.registry import MODELS


@MODELS.register_module()
class MaskHead(BaseModule):
    """Predicts a mask for each query that it is given, but neither class nor box.

    It runs on matched queries in training and on those of kept detections in inference. GroupNorm normalises each query
    separately, so a query's mask does not depend on the other queries.

    Args:
        embed_dims: D.
        num_heads: H, of the attention maps.
        lateral_channels: channels of the backbone's finer feature maps, finest first.
        num_groups: of GroupNorm; they must divide D + H and D / 2, D / 4, ...
        mask_weight: of the focal loss.
        dice_weight: of the dice loss.
        freeze_detector: train the mask head alone; the detector stays in evaluation mode, its boxes unchanged.
        panoptic: config of :class:`PanopticMerging`, which merges masks into a panoptic map; None for instances.
        chunk: queries per pass in inference; all 300 together need gigabytes for an image of 800 x 1066 pixels.
        init_cfg: mmengine's initialisation.

    Raises:
        UserError: widths, heads and groups do not divide each other.

    Paper: DETR, section 4.4, Figure 8, and its code (``--masks``).
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        lateral_channels: Sequence[int] = (256, 512, 1024),
        num_groups: int = 8,
        mask_weight: float = 1.0,
        dice_weight: float = 1.0,
        freeze_detector: bool = False,
        panoptic: dict | None = None,
        chunk: int = 16,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.embed_dims, self.lateral_channels = embed_dims, tuple(lateral_channels)
        self.mask_weight, self.dice_weight = mask_weight, dice_weight
        self.freeze_detector, self.chunk = freeze_detector, chunk
        self.panoptic = PanopticMerging(**panoptic) if panoptic is not None else None
        entrance = embed_dims + num_heads
        widths = [entrance, *(embed_dims // 2 ** (step + 1) for step in range(len(lateral_channels) + 1))]
        check_widths(widths, embed_dims, num_heads, num_groups)
        self.attention = MaskAttention(embed_dims, num_heads)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip([entrance, *widths], widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(num_groups, width) for width in widths)
        self.laterals = nn.ModuleList(  # coarse to fine, the order of use
            nn.Conv2d(channels, width, 1) for channels, width in zip(reversed(lateral_channels), widths[1:])
        )
        self.predictor = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, inputs: MaskInputs, queries: list[Tensor]) -> Tensor:
        """Mask logits of each image's queries.

        Args:
            inputs: of B images.
            queries: per image (K_b, D), last hidden states; K is the sum of K_b.

        Returns:
            (K, height / 4, width / 4), ordered by image, at the size of the finest feature map.
        """
        image = torch.arange(len(queries), device=inputs.projected.device)
        image = image.repeat_interleave(torch.tensor([len(each) for each in queries], device=image.device))
        return self._refine(inputs, self.attention(queries, inputs.memory.content, inputs.memory.mask), image)

    def of_batch(self, inputs: MaskInputs, queries: Tensor) -> Tensor:
        """Like :meth:`forward` for exporters, with the same number of queries in each image.

        Shapes: queries (B, K, D) -> (B, K, height / 4, width / 4).
        """
        maps = self.attention.weights(queries, inputs.memory.content, inputs.memory.mask)  # (B, K, H, S)
        image = torch.arange(maps.shape[0], device=maps.device)[:, None].expand(maps.shape[:2]).flatten()
        return self._refine(inputs, maps.flatten(0, 1), image).unflatten(0, maps.shape[:2])

    def _refine(self, inputs: MaskInputs, maps: Tensor, image: Tensor) -> Tensor:
        """Attention maps (K, H, S) of queries of the images ``image`` (K,) -> (K, height / 4, width / 4)."""
        x = self._enter(inputs.projected, maps.unflatten(-1, inputs.projected.shape[-2:]), image)
        x = self.norms[0](x).relu()  # (K, D + H, h, w)
        x = self.norms[1](self.convs[1](x)).relu()  # (K, D / 2, h, w)
        for lateral, conv, norm, finer in zip(self.laterals, self.convs[2:], self.norms[2:], reversed(inputs.laterals)):
            finer = lateral(finer)
            x = finer[image] + F.interpolate(x, size=finer.shape[-2:])
            x = norm(conv(x)).relu()  # half the channels, at the size of this feature map
        return self.predictor(x)[:, 0]

    def _enter(self, projected: Tensor, maps: Tensor, image: Tensor) -> Tensor:
        """The first convolution, on [feature map; attention maps]; its first part is shared by all queries of an image.

        Shapes: projected (B, D, h, w), maps (K, H, h, w), image (K,), the image of each query -> (K, D + H, h, w).
        """
        weight = self.convs[0].weight.split([projected.shape[1], maps.shape[1]], dim=1)
        shared = F.conv2d(projected, weight[0], self.convs[0].bias, padding=1)
        return shared[image] + F.conv2d(maps, weight[1], padding=1)

    def loss(self, inputs: MaskInputs, f: Tensor, matches: Matches, samples: SampleList) -> dict[str, Tensor]:
        """Focal and dice losses of the matched queries' masks, divided by the number of boxes in the batch.

        Args:
            inputs: of the batch.
            f: (B, N, D), hidden states of the last layer.
            matches: of the last layer, ordered by image.
            samples: whose ``gt_instances.masks`` (G_b, height, width) have the size of the resized image.

        Returns:
            Scalars ``loss_mask`` and ``loss_dice``.

        Raises:
            NonFiniteLossError: naming images and term.
            UserError: an image has no masks.
        """
        check_masks(samples)
        num_boxes = f.new_tensor([sum(len(sample.gt_instances) for sample in samples)], dtype=torch.float32)
        num_boxes = reduce_mean(num_boxes).clamp(min=1)[0]
        size = samples[0].batch_input_shape
        chosen = [matches.image == image for image in range(len(samples))]
        logits = self(inputs, [f[image, matches.query[rows]] for image, rows in enumerate(chosen)])
        targets = [
            pad(sample.gt_instances.masks.to_tensor(torch.float32, f.device)[matches.target[rows]], size)
            for sample, rows in zip(samples, chosen)
        ]
        with full_precision(logits):
            logits, target = resize(logits.float(), size).flatten(1), torch.cat(targets).flatten(1)
            terms = dict(
                loss_mask=self.mask_weight * focal_loss(logits, target) / num_boxes,
                loss_dice=self.dice_weight * dice_loss(logits, target) / num_boxes,
            )
        table = {
            name: value.new_zeros(len(samples)).index_add(0, matches.image, value) for name, value in terms.items()
        }
        names = [image_name(samples, image) for image in range(len(samples))]
        check_finite({name: value[None] for name, value in table.items()}, names)
        return {name: value.sum() for name, value in table.items()}

    def predict(
        self, inputs: MaskInputs, f: Tensor, results: list[InstanceData], samples: SampleList, rescale: bool
    ) -> list[PixelData]:
        """Add masks to detections, in place.

        Args:
            inputs: of the batch.
            f: (B, N, D), hidden states of the last layer.
            results: per image the detections, with ``queries`` (K,), the query of each. ``masks`` (K, height, width),
                bool, are added.
            samples: the images' sizes.
            rescale: make masks of the original image's size rather than of the resized one's.

        Returns:
            Per image the merged map (1, height, width), if masks are merged; ``results`` then keep things only.
        """
        merged = []
        for image, (result, sample) in enumerate(zip(results, samples)):
            queries, place = result.queries.unique(return_inverse=True)
            one = inputs.of_image(image)
            logits = [self(one, [f[image, part]]).float() for part in queries.split(self.chunk)]
            logits = torch.cat(logits) if logits else f.new_zeros(0, 1, 1)
            final = tuple(sample.ori_shape if rescale else sample.img_shape)[:2]
            parts = [finish(part, sample, final) > 0 for part in logits.split(self.chunk)]
            result.masks = torch.cat(parts)[place]
            if self.panoptic is not None:
                keep = self.panoptic.choose(result)
                chosen = finish(logits[place[keep]], sample, final)
                sem_seg = self.panoptic.merge(chosen, result.labels[keep], result.scores[keep])
                merged.append(PixelData(sem_seg=sem_seg[None]))
                results[image] = result[result.labels < self.panoptic.num_things]
        return merged
