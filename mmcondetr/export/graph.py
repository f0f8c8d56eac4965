"""The detector as one graph of tensors: 8-bit images and their sizes in, detections in pixels out.

What the eager model decides on the host from Python numbers (what is padded, how large an image was) is computed from
tensors here, so the graph does not depend on the images that it is traced with. All of the export's knowledge of the
models is in this file: backbone, neck, ``encode``, decoder and heads, and the module that takes the softmax.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from mmcondetr.errors import UserError
from mmcondetr.models.attention import DotProductAttention
from mmcondetr.models.detector import ConditionalDETR
from mmcondetr.models.masks.mask_inputs import MaskInputs


def check_supported(detector: nn.Module) -> None:
    """Raise unless the detector is one of this package.

    Raises:
        UserError: naming its type.
    """
    if not isinstance(detector, ConditionalDETR):
        raise UserError(
            f"{type(detector).__module__}.{type(detector).__name__} cannot be exported: only this package's "
            "detectors can (model.type in the config: 'mmcondetr.ConditionalDETR')."
        )


class DetectionGraph(nn.Module):
    """Normalisation, padding, the detector and its post-processing, as one module.

    It uses a copy of the detector, with BatchNorm folded into the convolutions' weights.

    Args:
        detector: a trained Conditional DETR or a variant of it.

    Raises:
        UserError: the detector is from another package, or has classes that were never trained.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        check_supported(detector)
        detector.check_trained()
        detector = fuse_conv_bn(copy.deepcopy(detector).eval()).eval().requires_grad_(False)
        for name, module in list(detector.named_modules()):
            if isinstance(module, DotProductAttention):
                detector.set_submodule(name, ExplicitAttention(module.num_heads))
        preprocessor = detector.data_preprocessor
        self.detector = detector
        self.swap_channels = not preprocessor._channel_conversion  # the model was trained on OpenCV's order
        self.pad_value = float(preprocessor.pad_value)
        mean = preprocessor.mean if preprocessor._enable_normalize else torch.zeros(3, 1, 1)
        std = preprocessor.std if preprocessor._enable_normalize else torch.ones(3, 1, 1)
        self.register_buffer('mean', mean.clone().expand(3, 1, 1))
        self.register_buffer('std', std.clone().expand(3, 1, 1))

    def forward(self, images: Tensor, valid_sizes: Tensor, original_sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: (B, 3, height, width) uint8, RGB, each in the upper left corner; the rest is ignored.
            valid_sizes: (B, 2) int64, height and width of each without its padding, pixels.
            original_sizes: (B, 2) int64, height and width of each before it was resized, pixels.

        Returns:
            - boxes (B, K, 4), xyxy in pixels of the original images, best first;
            - scores (B, K);
            - labels (B, K) int64;
            - with a mask head: masks (B, K, height / 4, width / 4), logits, of the padded images.
        """
        padding = outside(images.shape[-2:], images.shape[-2:], valid_sizes)
        maps = self.detector.backbone(self.normalise(images, padding))
        features = self.detector.neck(maps[-1:])[-1]
        memory = self.detector.encode(features, outside(images.shape[-2:], features.shape[-2:], valid_sizes))
        hidden_states, references = self.detector.decoder(self.detector.query_embedding.weight[None], memory)
        logits, boxes = self.detector.bbox_head(hidden_states[-1:], references[-1:])
        boxes, scores, labels, query = self.best(logits[0], boxes[0], original_sizes)
        if self.detector.mask_head is None:
            return boxes, scores, labels
        chosen = hidden_states[-1].gather(1, query[..., None].expand(-1, -1, hidden_states.shape[-1]))  # (B, K, D)
        masks = self.detector.mask_head.of_batch(MaskInputs(features, memory, maps[:-1]), chosen)
        return boxes, scores, labels, masks

    def normalise(self, images: Tensor, padding: Tensor) -> Tensor:
        """The backbone's input, float32: images (B, 3, height, width) uint8, padding (B, height, width)."""
        if self.swap_channels:
            images = images.flip(1)
        return torch.where(padding[:, None], self.pad_value, (images.float() - self.mean) / self.std)

    def best(self, logits: Tensor, boxes: Tensor, original_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best pairs of query and class: logits (B, N, outputs), boxes (B, N, 4) cxcywh in fractions.

        Returns:
            Boxes, scores and labels as in :meth:`forward`, and queries (B, K).
        """
        head = self.detector.bbox_head
        scores = head.class_scores(logits).flatten(1)  # (B, N * classes)
        scores, indices = scores.topk(min(head.max_per_img, logits.shape[1] * head.num_classes))
        query = torch.div(indices, head.num_classes, rounding_mode='floor')
        boxes = bbox_cxcywh_to_xyxy(boxes.gather(1, query[..., None].expand(-1, -1, 4)))  # (B, K, 4)
        if head.clip_boxes:
            boxes = boxes.clamp(0, 1)
        sizes = original_sizes.flip(1).repeat(1, 2)[:, None]  # (B, 1, 4): w, h, w, h
        return boxes * sizes.to(boxes.dtype), scores, indices - query * head.num_classes, query


class ExplicitAttention(nn.Module):
    """:class:`~mmcondetr.models.attention.DotProductAttention` as matrix products and a softmax.

    In this form runtimes keep the width of the values; torch's fused kernels need them as wide as the keys.

    Args:
        num_heads: H.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(
        self, queries: Sequence[Tensor], keys: Sequence[Tensor], value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attend; arguments and result as in :meth:`DotProductAttention.forward`."""
        batch = value.shape[0]
        q, k, v = self._heads(queries, batch), self._heads(keys, batch), self._heads((value,), batch)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, N, S)
        if mask is not None:
            logits = logits + torch.where(mask, float('-inf'), 0.0)[:, None, None, :]
        return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def _heads(self, parts: Sequence[Tensor], batch: int) -> Tensor:
        """Split each part into heads and concatenate the parts; a single part shared by all images stays shared."""
        heads = [part.unflatten(-1, (self.num_heads, -1)) for part in parts]
        if len(heads) == 1:
            return heads[0].transpose(1, 2)
        # Only tensors with batch size 1 in the model are copied; comparing a dynamic size would make it static.
        heads = [
            head.expand(batch, -1, -1, -1) if isinstance(head.shape[0], int) and head.shape[0] == 1 else head
            for head in heads
        ]
        return torch.cat(heads, dim=-1).transpose(1, 2)


def outside(image: Sequence[int], grid: Sequence[int], valid_sizes: Tensor) -> Tensor:
    """Which cells of a grid over the padded images are padding, chosen as by ``F.interpolate``.

    Args:
        image: height and width of the padded images, pixels.
        grid: (h, w); the images' own size for a mask of pixels.
        valid_sizes: (B, 2), height and width of each image without its padding, pixels.

    Returns:
        (B, h, w), True in the padding.
    """
    rows, columns = [
        _nearest(pixels, cells, valid_sizes)[None] >= valid_sizes[:, axis, None]
        for axis, (pixels, cells) in enumerate(zip(image, grid))
    ]
    return rows[:, :, None] | columns[:, None, :]


def _nearest(pixels: int, cells: int, like: Tensor) -> Tensor:
    """The pixel from which each cell takes its value, (cells, ): torch's rule, in float32 like torch."""
    step = torch.full((), pixels, dtype=torch.float32) / torch.full((), cells, dtype=torch.float32)
    return (torch.arange(cells, device=like.device) * step).floor().long()
