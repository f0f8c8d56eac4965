"""Runs our models and others' on the weights of weights.py, and measures how far apart their outputs are.

The tests beside this file assert the differences; make_fidelity_table.py writes them into docs/fidelity.md.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import weights
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmcondetr.checkpoints.renaming import from_ours, to_ours
from mmcondetr.checkpoints.rules import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parent / 'golden'
BACKBONES = ('r50', 'r101', 'r50-dc5', 'r101-dc5')
TOLERANCE = 1e-4  # absolute, of logits, boxes (fractions of the image) and loss terms, in fp32
SPREAD = 0.03  # least standard deviation of logits over the queries: below it any two models would agree
TERMS = ('loss_cls', 'loss_bbox', 'loss_iou')
OBJECTS = (7, 4)  # of the two images


class Difference(NamedTuple):
    """Largest absolute differences, and the standard deviation of the logits over the queries."""

    logits: float
    boxes: float
    loss: float | None
    spread: float


def depth(backbone: str) -> int:
    return int(backbone[1:].split('-')[0])


def config(backbone: str) -> Config:
    """The model of a config in configs/conditional_detr, with nothing to download."""
    batch = '8xb1' if 'dc5' in backbone else '8xb2'
    result = Config.fromfile(ROOT / f'configs/conditional_detr/conditional-detr_{backbone}_{batch}-50e_coco.py').model
    result.backbone.init_cfg = None
    return result


def build(model: dict, scope: str = 'mmcondetr') -> nn.Module:
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(model).eval()


@lru_cache(maxsize=1)
def _authors_tensors(layers: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in weights.authors_state_dict(layers).items()}


def authors_tensors(backbone: str) -> dict[str, Tensor]:
    """A full authors' checkpoint, 91 classes; do not modify."""
    return dict(_authors_tensors(depth(backbone)))


def our_tensors(backbone: str) -> dict[str, Tensor]:
    """The same under our names, 91 classes."""
    return to_ours(authors_tensors(backbone), FAMILIES['authors'], 'made by the rule')[0]


def our_model(backbone: str, num_classes: int = 91, family: str = 'authors') -> nn.Module:
    """Our model from the config, loaded from the names of a family."""
    model = config(backbone)
    model.bbox_head.num_classes = num_classes
    result = build(model)
    result.load_state_dict(from_ours(our_tensors(backbone), FAMILIES[family], 'made by the rule'))
    return result


def images() -> tuple[Tensor, Tensor]:
    """Two padded images (2, 3, H, W), and where they are padded (2, H, W)."""
    pixels, mask = weights.batch()
    return torch.from_numpy(pixels), torch.from_numpy(mask)


def samples(targets: list[dict[str, np.ndarray]], sizes: tuple = weights.IMAGE_SIZES) -> list[DetDataSample]:
    """mmdet's samples: sizes (height, width), and the targets as xyxy boxes in pixels."""
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    result = []
    for size, target in zip(sizes, targets):
        sample = DetDataSample(
            metainfo=dict(img_shape=size, batch_input_shape=(height, width), ori_shape=size, scale_factor=(1.0, 1.0))
        )
        boxes = bbox_cxcywh_to_xyxy(torch.from_numpy(target['boxes'])) * torch.tensor([size[1], size[0]] * 2)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.from_numpy(target['labels']))
        result.append(sample)
    return result


def model_samples(num_classes: int) -> list[DetDataSample]:
    return samples(weights.targets('model', num_classes, OBJECTS))


@torch.no_grad()
def outputs(model: nn.Module, num_classes: int = 91) -> tuple[Tensor, Tensor]:
    """Class logits (L, B, N, classes) and boxes (L, B, N, 4) on the two images; ours or mmdet's."""
    return model(images()[0], model_samples(num_classes), mode='tensor')


def terms(losses: dict[str, Tensor]) -> Tensor:
    """mmdet's loss dict as (L, 3), the last layer last, in the order of TERMS."""
    layers = sum(name.endswith('loss_cls') for name in losses)
    prefixes = [f'd{layer}.' for layer in range(layers - 1)] + ['']
    return torch.stack([torch.stack([losses[prefix + term].detach() for term in TERMS]) for prefix in prefixes])


def losses_of(head: nn.Module, logits: Tensor, boxes: Tensor, ground_truth: list[DetDataSample]) -> Tensor:
    """Our head's loss terms (L, 3) on given outputs: logits (L, B, N, classes) and boxes (L, B, N, 4)."""
    head.forward = lambda *_: (logits, boxes)
    try:
        return terms(head.loss(logits, boxes, ground_truth))
    finally:
        del head.forward


def spread(logits: Tensor) -> float:
    """Standard deviation over the queries, averaged over images and classes; of the last layer (B, N, classes)."""
    return logits.std(dim=1).mean().item()


def apart(ours: Tensor, theirs: Tensor | np.ndarray) -> float:
    return (ours - torch.as_tensor(theirs)).abs().max().item()


def against_authors(backbone: str, family: str = 'authors') -> Difference:
    """Our model, loaded from the names of a family, against the golden outputs of the authors' code."""
    golden = np.load(GOLDEN / f'authors_{backbone}.npz')
    model = our_model(backbone, family=family)
    logits, boxes = outputs(model)
    difference = max(apart(logits[:, :, ::10], golden['logits']), apart(logits[-1, :, ::3], golden['last_logits']))
    loss = losses_of(model.bbox_head, logits, boxes, model_samples(91))
    return Difference(difference, apart(boxes, golden['boxes']), apart(loss, golden['terms']), spread(logits[-1]))


def wrongly_dilated(backbone: str) -> Difference:
    """The authors' DC5 weights in mmdet.ResNet(dilations=(1, 1, 1, 2)), which dilates the first block too."""
    model = config(backbone)
    model.bbox_head.num_classes = 91
    model.backbone.update(type='mmdet.ResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    model = build(model)
    model.load_state_dict(authors_tensors(backbone))
    golden = np.load(GOLDEN / f'authors_{backbone}.npz')
    logits, boxes = outputs(model)
    return Difference(
        apart(logits[-1, :, ::3], golden['last_logits']),
        apart(boxes[-1], golden['boxes'][-1]),
        None,
        spread(logits[-1]),
    )


@torch.no_grad()
def padding_leak(backbone: str) -> tuple[Difference, Difference]:
    """The second image in the batch, where it is padded, against the same image alone.

    Returns:
        Through the whole model; and through the transformer, which gets the features of the image alone, with and
        without padded tokens of noise.
    """
    model, pixels, both = our_model(backbone), images()[0], model_samples(91)
    height, width = weights.IMAGE_SIZES[1]
    alone = pixels[1:, :, :height, :width]
    logits, boxes = model(pixels, both, mode='tensor')
    features = model.extract_feat(alone)
    expected, reference = model.forward_transformer(features, None)
    their_logits, their_boxes = model.bbox_head(expected, reference)
    whole = Difference(
        apart(logits[:, 1:], their_logits), apart(boxes[:, 1:], their_boxes), None, spread(their_logits[-1])
    )
    rows, columns = features.shape[-2:]
    padded = torch.randn(1, features.shape[1], rows + 2, columns + 3, generator=torch.Generator().manual_seed(0))
    padded[:, :, :rows, :columns] = features
    padding = torch.ones(1, rows + 2, columns + 3, dtype=torch.bool)
    padding[:, :rows, :columns] = False
    logits, boxes = model.bbox_head(*model.forward_transformer(padded, padding))
    transformer = Difference(apart(logits, their_logits), apart(boxes, their_boxes), None, spread(logits[-1]))
    return whole, transformer


def mmdet_model(backbone: str) -> nn.Module:
    """mmdet's own ConditionalDETR; for DC5, which it has no config for, on our backbone."""
    model = Config.fromfile(_mmdet_config()).model
    model.backbone.update(depth=depth(backbone), init_cfg=None)
    if 'dc5' in backbone:
        model.backbone = config(backbone).backbone
    result = build(model, 'mmdet')
    assert type(result).__module__.startswith('mmdet.')
    return result


def _mmdet_config() -> Path:
    import mmdet

    return Path(mmdet.__file__).parent / '.mim/configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'


def mmdet_tensors(ours: nn.Module) -> dict[str, Tensor]:
    """Our model's tensors under mmdet's names."""
    return from_ours(ours.state_dict(), FAMILIES['mmdet'], 'our model')


def against_mmdet(backbone: str) -> Difference:
    """Our model against mmdet's, both run now, with 80 classes."""
    ours, theirs = our_model(backbone, 80), mmdet_model(backbone)
    theirs.load_state_dict(mmdet_tensors(ours))
    logits, boxes = outputs(ours, 80)
    their_logits, their_boxes = outputs(theirs, 80)
    with torch.no_grad():  # eval: no dropout
        loss = terms(ours.loss(images()[0], model_samples(80)))
        their_loss = terms(theirs.loss(images()[0], model_samples(80)))
    return Difference(
        apart(logits, their_logits), apart(boxes, their_boxes), apart(loss, their_loss), spread(logits[-1])
    )


@torch.no_grad()
def against_transformers(backbone: str, folder: Path) -> Difference:
    """Our model against transformers', which opens a folder that our converter wrote.

    transformers gives the last layer only (``auxiliary_loss=False``).
    """
    from transformers import ConditionalDetrForObjectDetection

    theirs = ConditionalDetrForObjectDetection.from_pretrained(folder).eval()
    ours = our_model(backbone)
    pixels, mask = images()
    targets = weights.targets('model', 91, OBJECTS)
    labels = [
        dict(class_labels=torch.from_numpy(item['labels']), boxes=torch.from_numpy(item['boxes'])) for item in targets
    ]
    result = theirs(pixel_values=pixels, pixel_mask=(~mask).long(), labels=labels)
    factors = [getattr(theirs.config, f'{name}_loss_coefficient') for name in ('cls', 'bbox', 'giou')]
    their_loss = torch.stack(
        [result.loss_dict[name] * factor for name, factor in zip(('loss_ce', 'loss_bbox', 'loss_giou'), factors)]
    )
    logits, boxes = outputs(ours)
    loss = losses_of(ours.bbox_head, logits, boxes, model_samples(91))[-1]
    return Difference(
        apart(logits[-1], result.logits),
        apart(boxes[-1], result.pred_boxes),
        apart(loss, their_loss),
        spread(logits[-1]),
    )
