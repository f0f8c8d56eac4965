"""Training and inference of a detector with a mask head, which runs on matched queries and on those of kept detections.
Matching and selection depend on boxes and classes only, which are those of the detector without masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures import SampleList
from torch import Tensor, nn

from mmcondetr.errors import UserError
from mmcondetr.models.masks.mask_checks import check_fit, check_laterals
from mmcondetr.models.masks.mask_inputs import MaskInputs
from mmcondetr.models.masks.mask_sizes import finish


def prepare(detector: nn.Module) -> None:
    """Called once, when the detector is built: freeze it if the mask head requires that.

    Raises:
        UserError: detections are trained together with masks and with more than the object queries, or the mask head
            does not fit the detector.
    """
    if detector.mask_head is None:
        return
    check_fit(detector)
    if _is_frozen(detector):
        for name, parameter in detector.named_parameters():
            parameter.requires_grad_(name.startswith('mask_head.'))
    elif type(detector.training_queries).__name__ != 'ObjectQueries':
        part = type(detector.training_queries).__name__
        raise UserError(
            f'model.mask_head and model.training_queries ({part}) cannot be trained together: train the detections '
            'first, then masks with load_from and mask_head.freeze_detector=True.'
        )


def keep_frozen(detector: nn.Module) -> None:
    """Keep a frozen detector in evaluation mode: no dropout, and BatchNorm's statistics stay fixed."""
    if _is_frozen(detector):
        for name, module in detector.named_children():
            module.train(detector.training and name == 'mask_head')


def loss(detector: nn.Module, images: Tensor, samples: SampleList) -> dict[str, Tensor]:
    """Detection losses of all layers, unless the detector is frozen, and losses of the last layer's masks."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not _is_frozen(detector)):
        inputs = _encode(detector, images, samples)
        hidden_states, references = detector.decoder(detector.query_embedding.weight[None], inputs.memory)
    losses = {} if _is_frozen(detector) else detector.bbox_head.loss(hidden_states, references, samples)
    matches = detector.bbox_head.match(hidden_states[-1:], references[-1:], samples)
    return {**losses, **detector.mask_head.loss(inputs, hidden_states[-1], matches, samples)}


def predict(detector: nn.Module, images: Tensor, samples: SampleList, rescale: bool) -> SampleList:
    """Detections with ``masks``, and if masks are merged ``pred_panoptic_seg``."""
    inputs = _encode(detector, images, samples)
    hidden_states, references = detector.decoder(detector.query_embedding.weight[None], inputs.memory)
    results = detector.bbox_head.predict(hidden_states, references, samples, rescale, with_queries=True)
    merged = detector.mask_head.predict(inputs, hidden_states[-1], results, samples, rescale)
    for sample, panoptic in zip(samples, merged):
        sample.pred_panoptic_seg = panoptic
    return detector.add_pred_to_datasample(samples, results)


def masks_of(detector: nn.Module, images: Tensor, samples: SampleList, queries: Sequence[int]) -> Tensor:
    """Masks of chosen object queries of the first image, (K, height, width) bool in its original size."""
    inputs = detector.encode_with_maps(images, samples).of_image(0)
    hidden_states, _ = detector.decoder(detector.query_embedding.weight[None], inputs.memory)
    logits = detector.mask_head(inputs, [hidden_states[-1][0, list(queries)]])
    return finish(logits.float(), samples[0], samples[0].ori_shape[:2]) > 0


def _encode(detector: nn.Module, images: Tensor, samples: SampleList) -> MaskInputs:
    inputs = detector.encode_with_maps(images, samples)
    check_laterals(detector.mask_head.lateral_channels, inputs)
    return inputs


def _is_frozen(detector: nn.Module) -> bool:
    mask_head = getattr(detector, 'mask_head', None)  # none while the detector is being built
    return mask_head is not None and mask_head.freeze_detector
