"""Counts parameters and multiply-adds of a model on the meta device, as the DETR papers do.

The papers give the mean over the first 100 images of COCO val2017, each resized for testing and alone in its batch,
and write FLOPs for multiply-adds. Only matrix products, convolutions and attention's two inner products are
counted here. Table 1 counts more, mostly attention's softmax: see configs/conditional_detr/README.md.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from mmcondetr.models.attention import DotProductAttention

Size = tuple[int, int]


@dataclass(frozen=True)
class Complexity:
    """The size of a model and the cost of an image.

    Attributes:
        parameters: all that inference uses, trainable or frozen; BatchNorm's statistics are buffers and do not count.
        multiply_adds: mean over the images.
    """

    parameters: int
    multiply_adds: float


# No products, and the shape is kept. The meta device would compute them in Python, for half of the total time.
SHAPE_KEEPING = (F.batch_norm, F.layer_norm, F.relu, F.relu_, F.dropout)


class AttentionCounter(TorchFunctionMode):
    """Counts fused attention by its shapes and skips it, so that the count does not depend on the backend.

    A value that :class:`DotProductAttention` padded to the query's width for the fused kernel counts with its original
    width, because the padding is not needed for the result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0
        self.value_width = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in SHAPE_KEEPING:
            return args[0]
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args[:3]
        width = self.value_width or v.shape[-1]
        self.multiply_adds += q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + width)
        return q.new_empty(*q.shape[:-1], v.shape[-1])

    def watch(self, model: nn.Module) -> list:
        """Record the value's width in every :class:`DotProductAttention`; returns the hooks' handles."""

        def enter(module: DotProductAttention, args: tuple) -> None:
            self.value_width = args[2].shape[-1] // module.num_heads

        def leave(module: DotProductAttention, args: tuple, output: Tensor) -> None:
            self.value_width = None

        handles = []
        for module in model.modules():
            if isinstance(module, DotProductAttention):
                handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        return handles


def resized(size: Size, shorter: int = 800, longer: int = 1333) -> Size:
    """The (width, height) of a resized image: its shorter side ``shorter``, its longer at most ``longer`` pixels."""
    scale = min(shorter / min(size), longer / max(size))
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def read_sizes(path: str | Path) -> list:
    """Read (width, height) of every image of a COCO-style JSON file.

    Raises:
        ValueError: the file has no images with a width and a height.
    """
    images = json.loads(Path(path).read_text()).get('images')
    if not images or any('width' not in image or 'height' not in image for image in images):
        raise ValueError(f'{path}: field "images" must list images that each have a width and a height')
    return [(image['width'], image['height']) for image in images]


def build_on_meta(config: Config) -> nn.Module:
    """Build a config's model on the meta device: tensors have shapes, but no memory for values."""
    from mmdet.registry import MODELS

    init_default_scope(config.get('default_scope', 'mmdet'))
    with torch.device('meta'):
        return MODELS.build(config.model).eval().requires_grad_(False)


def count_multiply_adds(model: nn.Module, size: Size) -> int:
    """Count the multiply-adds of a model on the meta device for one unpadded image of (width, height) pixels."""
    from mmdet.structures import DetDataSample

    width, height = size
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(height, width),
            batch_input_shape=(height, width),
            ori_shape=(height, width),
            pad_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
    )
    return _count(model, lambda: model(_blank(size), [sample], mode='tensor'))[0]


def _blank(size: Size) -> Tensor:
    """An image (1, 3, height, width) of a (width, height)."""
    return torch.empty(1, 3, size[1], size[0], device='meta')


def _count(model: nn.Module, run: Callable[[], object]) -> tuple[int, object]:
    """The multiply-adds of ``run``, which calls a model or a part of it, and what it returns."""
    attention, rest = AttentionCounter(), FlopCounterMode(display=False)
    handles = attention.watch(model)
    try:
        with torch.no_grad(), torch.device('meta'), rest, attention:
            result = run()
    finally:
        for handle in handles:
            handle.remove()
    return rest.get_total_flops() // 2 + attention.multiply_adds, result


_FEATURES: dict[tuple[str, Size], tuple[int, int]] = {}
"""The results of :func:`count_features` by settings, which many configs share, and size."""


def count_features(config: Config, model: nn.Module, size: Size) -> tuple[int, int]:
    """Count the multiply-adds of backbone and neck for an image of (width, height), and its feature map's positions."""
    key = repr((config.model.backbone, config.model.neck)), size
    if key not in _FEATURES:
        count, features = _count(model, lambda: model.extract_feat(_blank(size)))
        _FEATURES[key] = count, features[-1].shape[-2:].numel()
    return _FEATURES[key]


def count_by_parts(config: Config, model: nn.Module, sizes: Iterable[Size]) -> dict[Size, int]:
    """As :func:`count_multiply_adds` for each of many (width, height), in less time.

    Behind backbone and neck, the multiply-adds are a polynomial of the feature map's number of positions. Its degree is
    2, for the encoder's self-attention compares each with each, so that three small images determine it.

    Raises:
        ValueError: the largest image's count is another: the model is not built like that.
    """
    points = {}
    for size in ((32, 32), (64, 32), (96, 32)):
        features, positions = count_features(config, model, size)
        points[positions] = count_multiply_adds(model, size) - features
    counts = {}
    for size in sizes:
        features, positions = count_features(config, model, size)
        counts[size] = features + interpolate(points, positions)
    largest = max(counts, key=math.prod)
    if counts[largest] != (whole := count_multiply_adds(model, largest)):
        raise ValueError(f'an image of {largest} pixels costs {whole} multiply-adds, and its parts {counts[largest]}')
    return counts


def interpolate(points: dict[int, int], x: int) -> int:
    """The value at ``x`` of the polynomial of least degree through points (Lagrange's formula), exactly."""
    terms = (
        y * math.prod(Fraction(x - other, at - other) for other in points if other != at) for at, y in points.items()
    )
    return int(sum(terms))


def measure(config: Config, sizes: Iterable[Size]) -> Complexity:
    """Count a config's parameters and its mean multiply-adds over images of these (width, height) before resizing."""
    model = build_on_meta(config)
    # Rotating an image by 90 degrees does not change its cost: every kernel and stride is square.
    occurrences = Counter(tuple(sorted(resized(size))) for size in sizes)
    if len(occurrences) > 5:
        counts = count_by_parts(config, model, occurrences)
    else:
        counts = {size: count_multiply_adds(model, size) for size in occurrences}
    total = sum(counts[size] * times for size, times in occurrences.items())
    parameters = sum(
        parameter.numel() for name, parameter in model.named_parameters() if not name.startswith('training_queries.')
    )
    return Complexity(parameters=parameters, multiply_adds=total / sum(occurrences.values()))
