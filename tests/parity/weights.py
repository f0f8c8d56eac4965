"""Weights and images made by a rule, so that two implementations can be compared without a download.

Every tensor of a checkpoint in the authors' format is a function of its name and its shape alone: the SHA-256 of the
name seeds a PCG64 bit generator, whose raw output (which numpy keeps fixed between versions) becomes uniform numbers.

A transformer at random initialisation makes all tokens and all queries alike, and then any two implementations 'agree'.
The gains below keep them apart: the input projection is large, the encoder's residual branches small, attention logits
and cross-attention values large. Nothing is silent: no BatchNorm scale and no box layer is zero.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
EMBED_DIMS = 256
FEEDFORWARD = 2048
IMAGE_SIZES = ((200, 264), (152, 228))  # (height, width) in pixels; neither is a multiple of the stride

# The first matching rule applies: (ending of the name without layer indices, gain on the base scale).
GAINS = (
    ('input_proj.weight', 8.0),
    ('encoder.self_attn.in_proj_weight', 2.0),
    ('encoder.self_attn.out_proj.weight', 0.3),
    ('encoder.linear2.weight', 0.3),
    ('decoder.query_scale.weight', 2.0),
    ('decoder.ref_point_head.weight', 2.0),
    ('decoder.self_attn.out_proj.weight', 0.3),
    ('decoder.linear2.weight', 0.3),
    ('decoder.sa_qcontent_proj.weight', 3.0),
    ('decoder.sa_qpos_proj.weight', 3.0),
    ('decoder.sa_kcontent_proj.weight', 3.0),
    ('decoder.sa_kpos_proj.weight', 3.0),
    ('decoder.ca_qcontent_proj.weight', 3.0),
    ('decoder.ca_qpos_proj.weight', 3.0),
    ('decoder.ca_qpos_sine_proj.weight', 3.0),
    ('decoder.ca_kcontent_proj.weight', 3.0),
    ('decoder.ca_kpos_proj.weight', 3.0),
    ('decoder.ca_v_proj.weight', 8.0),
)


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Numbers in [low, high) that depend on the name and the shape only, as float32."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'little')
    raw = np.random.PCG64(seed).random_raw(math.prod(shape))
    fraction = (raw >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    return (np.float32(low) + fraction * np.float32(high - low)).reshape(shape).astype(np.float32)


def _gain(name: str) -> float:
    short = '.'.join(part for part in name.replace('transformer.', '').split('.') if not part.isdigit())
    short = short.replace('.layers.', '.')
    return next((gain for ending, gain in GAINS if short.endswith(ending)), 1.0)


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one tensor of the authors' state dict."""
    last = name.rsplit('.', 1)[-1]
    if last == 'num_batches_tracked':
        return np.array(0, dtype=np.int64)
    if last == 'running_var':
        return uniform(name, shape, 0.5, 1.5)
    if last == 'running_mean':
        return uniform(name, shape, -0.1, 0.1)
    if len(shape) == 1 and last == 'weight':  # BatchNorm and LayerNorm scales; the residual branch's last one is small
        return uniform(name, shape, 0.7, 1.3) * np.float32(0.4 if '.bn3.' in name else 1.0)
    if name == 'class_embed.bias':
        return uniform(name, shape, -5.0, -4.0)
    if name.endswith('query_scale.layers.1.bias'):  # the transform is near 1: later layers see positions
        return uniform(name, shape, 0.5, 1.5)
    if len(shape) == 1:
        return uniform(name, shape, -0.1, 0.1)
    if name == 'query_embed.weight':
        return uniform(name, shape, -1.0, 1.0)
    if len(shape) == 4:  # convolutions, by fan-in
        bound = math.sqrt(6.0 / math.prod(shape[1:]))
    else:  # linear layers, Xavier
        bound = math.sqrt(6.0 / sum(shape))
    bound *= _gain(name)
    return uniform(name, shape, -bound, bound)


def backbone_shapes(depth: int, prefix: str = 'backbone.0.body.') -> dict[str, tuple[int, ...]]:
    """Names and shapes of a torchvision ResNet with frozen BatchNorm (no num_batches_tracked)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(conv: str, norm: str, *shape: int) -> None:
        shapes[f'{prefix}{conv}.weight'] = shape
        for item in ('weight', 'bias', 'running_mean', 'running_var'):
            shapes[f'{prefix}{norm}.{item}'] = shape[:1]

    convolution('conv1', 'bn1', 64, 3, 7, 7)
    channels = 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        for block in range(blocks):
            at = f'layer{stage + 1}.{block}.'
            convolution(f'{at}conv1', f'{at}bn1', width, channels, 1, 1)
            convolution(f'{at}conv2', f'{at}bn2', width, width, 3, 3)
            convolution(f'{at}conv3', f'{at}bn3', 4 * width, width, 1, 1)
            if block == 0:
                convolution(f'{at}downsample.0', f'{at}downsample.1', 4 * width, channels, 1, 1)
            channels = 4 * width
    return shapes


def transformer_shapes(layers: int = 6) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' transformer."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = (outputs, inputs), (outputs,)

    def norm(name: str) -> None:
        shapes[f'{name}.weight'] = shapes[f'{name}.bias'] = (EMBED_DIMS,)

    for layer in range(layers):
        at = f'transformer.encoder.layers.{layer}'
        shapes[f'{at}.self_attn.in_proj_weight'] = (3 * EMBED_DIMS, EMBED_DIMS)
        shapes[f'{at}.self_attn.in_proj_bias'] = (3 * EMBED_DIMS,)
        linear(f'{at}.self_attn.out_proj', EMBED_DIMS, EMBED_DIMS)
        linear(f'{at}.linear1', EMBED_DIMS, FEEDFORWARD)
        linear(f'{at}.linear2', FEEDFORWARD, EMBED_DIMS)
        norm(f'{at}.norm1')
        norm(f'{at}.norm2')
    for layer in range(layers):
        at = f'transformer.decoder.layers.{layer}'
        projections = [
            'sa_qcontent',
            'sa_qpos',
            'sa_kcontent',
            'sa_kpos',
            'sa_v',
            'ca_qcontent',
            'ca_kcontent',
            'ca_kpos',
            'ca_v',
            'ca_qpos_sine',
        ]
        for projection in projections + (['ca_qpos'] if layer == 0 else []):
            linear(f'{at}.{projection}_proj', EMBED_DIMS, EMBED_DIMS)
        linear(f'{at}.self_attn.out_proj', EMBED_DIMS, EMBED_DIMS)
        linear(f'{at}.cross_attn.out_proj', EMBED_DIMS, EMBED_DIMS)
        linear(f'{at}.linear1', EMBED_DIMS, FEEDFORWARD)
        linear(f'{at}.linear2', FEEDFORWARD, EMBED_DIMS)
        for item in range(1, 4):
            norm(f'{at}.norm{item}')
    norm('transformer.decoder.norm')
    linear('transformer.decoder.query_scale.layers.0', EMBED_DIMS, EMBED_DIMS)
    linear('transformer.decoder.query_scale.layers.1', EMBED_DIMS, EMBED_DIMS)
    linear('transformer.decoder.ref_point_head.layers.0', EMBED_DIMS, EMBED_DIMS)
    linear('transformer.decoder.ref_point_head.layers.1', EMBED_DIMS, 2)
    return shapes


def authors_shapes(depth: int, num_classes: int = 91, num_queries: int = 300) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor in an authors' checkpoint (DC5 has the same ones)."""
    shapes = transformer_shapes()
    shapes.update({'class_embed.weight': (num_classes, EMBED_DIMS), 'class_embed.bias': (num_classes,)})
    for index, outputs in enumerate((EMBED_DIMS, EMBED_DIMS, 4)):
        shapes[f'bbox_embed.layers.{index}.weight'] = (outputs, EMBED_DIMS)
        shapes[f'bbox_embed.layers.{index}.bias'] = (outputs,)
    shapes['query_embed.weight'] = (num_queries, EMBED_DIMS)
    shapes.update({'input_proj.weight': (EMBED_DIMS, 2048, 1, 1), 'input_proj.bias': (EMBED_DIMS,)})
    shapes.update(backbone_shapes(depth))
    return shapes


def authors_state_dict(depth: int) -> dict[str, np.ndarray]:
    """A full checkpoint's tensors in the authors' format (91 classes), as numpy arrays."""
    return {name: tensor(name, shape) for name, shape in authors_shapes(depth).items()}


def _interpolation(size: int, step: int) -> np.ndarray:
    """(size, cells) matrix that interpolates linearly between grid values ``step`` pixels apart."""
    position = np.arange(size) / step
    left = position.astype(int)
    matrix = np.zeros((size, left.max() + 2))
    matrix[np.arange(size), left] = 1 - (position - left)
    matrix[np.arange(size), left + 1] = position - left
    return matrix


def image(index: int, size: tuple[int, int]) -> np.ndarray:
    """A smooth blocky picture (3, height, width), already normalised, as float32."""
    result = np.zeros((3, *size))
    for step, strength in ((48, 2.0), (16, 0.8), (6, 0.3)):
        rows, columns = _interpolation(size[0], step), _interpolation(size[1], step)
        grid = uniform(f'image{index}.{step}', (3, rows.shape[1], columns.shape[1]), -1, 1).astype(np.float64)
        result += strength * (rows @ grid @ columns.T)
    return result.astype(np.float32)


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Two images of different sizes padded with zeros (2, 3, H, W), and the mask (2, H, W), True where padded."""
    height, width = (max(size[axis] for size in IMAGE_SIZES) for axis in (0, 1))
    pixels = np.zeros((len(IMAGE_SIZES), 3, height, width), dtype=np.float32)
    mask = np.ones((len(IMAGE_SIZES), height, width), dtype=bool)
    for index, (rows, columns) in enumerate(IMAGE_SIZES):
        pixels[index, :, :rows, :columns] = image(index, (rows, columns))
        mask[index, :rows, :columns] = False
    return pixels, mask


def targets(case: str, num_classes: int, counts: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    """Ground truth per image: labels (T,) and boxes (T, 4), cxcywh fractions of the unpadded image."""
    result = []
    for index, count in enumerate(counts):
        name = f'targets.{case}.{index}'
        size = uniform(f'{name}.size', (count, 2), 0.05, 0.6)
        centre = size / 2 + uniform(f'{name}.centre', (count, 2), 0, 1) * (1 - size)
        labels = uniform(f'{name}.labels', (count,), 0, num_classes).astype(np.int64)
        result.append({'labels': labels, 'boxes': np.concatenate([centre, size], axis=1).astype(np.float32)})
    return result


def predictions(case: str, layers: int, num_queries: int, num_classes: int, images: int = 2) -> dict[str, np.ndarray]:
    """Class logits (L, B, N, classes) and boxes (L, B, N, 4), cxcywh fractions, of no particular model."""
    logits = uniform(f'predictions.{case}.logits', (layers, images, num_queries, num_classes), -9, -2)
    size = uniform(f'predictions.{case}.size', (layers, images, num_queries, 2), 0.05, 0.7)
    centre = uniform(f'predictions.{case}.centre', (layers, images, num_queries, 2), 0.1, 0.9)
    return {'logits': logits, 'boxes': np.concatenate([centre, size], axis=-1).astype(np.float32)}


def digest(name: str, values: np.ndarray, parts: int = 2) -> np.ndarray:
    """The norm of a tensor and its inner products with a few directions chosen by its name, as float64."""
    flat = values.astype(np.float64).ravel()
    directions = [uniform(f'{name}.direction{part}', flat.shape, -1, 1).astype(np.float64) for part in range(parts)]
    return np.array([np.linalg.norm(flat), *(flat @ direction for direction in directions)])
