"""Builds each entry's model and the function that runs one step of it, on equal work."""

from __future__ import annotations

import copy
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from tools.benchmark.serving import Unavailable
from tools.benchmark.workload import OUR_CONFIGS, Workload

OBJECTS = 7  # COCO images have 7.3 on average

#: A model, a function that computes all losses, and one that computes detections.
BuiltModel = tuple[nn.Module, Callable[[], Tensor], Callable[[], object]]


def build(workload: Workload) -> tuple[nn.Module, Callable[[], None]]:
    """An entry's model and one step of it.

    Raises:
        Unavailable: something that it needs is not installed.
    """
    torch.manual_seed(0)
    name = workload.implementation.partition('-')[0]
    builders = dict(mmdet=_detector, mmcondetr=_detector, transformers=_transformers, authors=_authors)
    model, loss, predict = builders[name](workload)
    return model, (_training_step(workload, model, loss) if workload.training else _inference_step(workload, predict))


def _autocast(workload: Workload) -> torch.autocast:
    dtype = dict(fp32=torch.bfloat16, bf16=torch.bfloat16, fp16=torch.float16)[workload.precision]
    return torch.autocast(workload.device, dtype, enabled=workload.precision != 'fp32')


def _training_step(workload: Workload, model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=1e-4)  # small: random weights stay as they are

    def step() -> None:
        with _autocast(workload):
            total = loss()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        optimizer.step()

    return step


def _inference_step(workload: Workload, predict: Callable[[], object]) -> Callable[[], None]:

    @torch.no_grad()
    def step() -> None:
        with _autocast(workload):
            predict()

    return step


def _inputs(workload: Workload) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, height, width), boxes (B, 7, 4) xyxy in fractions of the image, labels (B, 7)."""
    images = torch.randn(workload.batch, 3, workload.height, workload.width)
    corners = torch.rand(workload.batch, OBJECTS, 2) * 0.5
    boxes = torch.cat((corners, corners + 0.1 + torch.rand(workload.batch, OBJECTS, 2) * 0.4), dim=-1)
    labels = torch.randint(0, 80, (workload.batch, OBJECTS))
    return tuple(x.to(workload.device) for x in (images, boxes, labels))


def _detector(workload: Workload) -> BuiltModel:
    """mmdet's model and ours: both take mmdet's data samples."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.registry import init_default_scope
    from mmengine.structures import InstanceData

    init_default_scope('mmdet')
    model = MODELS.build(_detector_config(workload))
    model.init_weights()
    model = model.to(workload.device).eval()
    if workload.implementation == 'mmdet-keeping':
        from mmcondetr.inference.optimize import keep_freed_memory

        keep_freed_memory()
    if workload.implementation in ('mmcondetr-optimized', 'mmcondetr-compiled'):
        from mmcondetr.inference.optimize import PRECISIONS, optimize_for_inference

        compile = workload.implementation.endswith('compiled')
        optimize_for_inference(model, PRECISIONS[workload.precision], compile, keep_memory=True)
    images, boxes, labels = _inputs(workload)
    size = (workload.height, workload.width)
    samples = []
    for box, label in zip(boxes * boxes.new_tensor([*size[::-1], *size[::-1]]), labels):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=size, batch_input_shape=size, pad_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)
            )
        )
        sample.gt_instances = InstanceData(bboxes=box, labels=label)
        samples.append(sample)

    return (
        model,
        lambda: sum(model(images, samples, mode='loss').values()),
        lambda: model(images, copy.copy(samples), mode='predict'),
    )


def _detector_config(workload: Workload) -> dict:
    from mmengine.config import Config

    dc5 = workload.model == 'r50-dc5'
    if workload.implementation.startswith('mmdet'):
        from mmengine.utils import get_installed_path

        path = Path(get_installed_path('mmdet'), '.mim/configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py')
        config = Config.fromfile(path).model
        if dc5:
            config.backbone.update(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    else:
        from mmcondetr.engine.config import find_config

        config = Config.fromfile(find_config(OUR_CONFIGS[workload.model])).model
        if workload.implementation == 'mmcondetr-11-groups':
            config.training_queries = dict(type='mmcondetr.QueryGroups', num_groups=11)
        if workload.implementation == 'mmcondetr-recomputing':
            for part in ('backbone', 'encoder', 'decoder'):
                config[part].with_cp = True
    config.backbone.init_cfg = None
    config.num_queries = workload.queries
    return config


def _transformers(workload: Workload) -> BuiltModel:
    if importlib.util.find_spec('transformers') is None:
        raise Unavailable('transformers is not installed')
    from transformers import ConditionalDetrConfig, ConditionalDetrForObjectDetection, ResNetConfig

    model = ConditionalDetrForObjectDetection(
        ConditionalDetrConfig(
            use_timm_backbone=False,
            backbone_config=ResNetConfig(out_features=['stage4']),
            num_labels=80,
            num_queries=workload.queries,
            auxiliary_loss=True,
            attention_dropout=0.1,
        )
    )  # like the others; its default is 0
    backbone = model.model.backbone
    for name, parameter in backbone.named_parameters():  # all frozen by default; equal work trains stages 2 to 4
        parameter.requires_grad_(bool(re.search(r'stages\.[123]\.', name)) and 'normalization' not in name)
    if workload.model == 'r50-dc5':
        _dilate_last_stage(backbone)
    model = model.to(workload.device).eval()
    images, boxes, labels = _inputs(workload)
    targets = [dict(class_labels=label, boxes=box) for label, box in zip(labels, _cxcywh(boxes))]

    def predict() -> object:
        output = model(pixel_values=images)
        scores, indices = output.logits.sigmoid().flatten(1).topk(100)
        return scores, indices % 80, output.pred_boxes.gather(1, (indices // 80)[..., None].expand(-1, -1, 4))

    return model, lambda: model(pixel_values=images, labels=targets).loss, predict


def _dilate_last_stage(backbone: nn.Module) -> None:
    """torchvision's rule, which this library applies to a timm backbone only: stride 1, dilation 2 except block 1."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and 'stages.3.' in name:
            module.stride = (1, 1)
            if module.kernel_size == (3, 3) and 'stages.3.layers.0.' not in name:
                module.dilation = module.padding = (2, 2)


def _cxcywh(boxes: Tensor) -> Tensor:
    return torch.cat(((boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]), dim=-1)


def _authors(workload: Workload) -> BuiltModel:
    if workload.authors is None:
        raise Unavailable("the folder of the authors' code was not given (--authors)")
    if importlib.util.find_spec('torchvision') is None:
        raise Unavailable("torchvision, which the authors' code needs, is not installed")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tests/parity/golden'))
    from authors_code import add_to_path, arguments, without_download

    add_to_path(workload.authors)
    from models.conditional_detr import build as build_authors
    from util.misc import NestedTensor

    args = arguments(
        device=workload.device,
        num_queries=workload.queries,
        dilation=workload.model == 'r50-dc5',
        cls_loss_coef=2,
        focal_alpha=0.25,
        set_cost_class=2,
    )
    with without_download():
        model, criterion, postprocessors = build_authors(args)
    model, criterion = model.to(workload.device).eval(), criterion.to(workload.device)
    images, boxes, labels = _inputs(workload)
    nested = NestedTensor(images, images.new_zeros((len(images), *images.shape[-2:]), dtype=torch.bool))
    targets = [dict(labels=label, boxes=box) for label, box in zip(labels, _cxcywh(boxes))]
    sizes = torch.tensor([[workload.height, workload.width]] * workload.batch, device=workload.device)

    def loss() -> Tensor:
        losses = criterion(model(nested), targets)
        return sum(losses[name] * weight for name, weight in criterion.weight_dict.items() if name in losses)

    return model, loss, lambda: postprocessors['bbox'](model(nested), sizes)
