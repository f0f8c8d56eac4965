"""DETR with masks in its authors' format, made by the rule of weights.py; and masks for its boxes."""

from __future__ import annotations

import numpy as np
import weights

DIMS, HEADS = weights.EMBED_DIMS, 8
NUM_QUERIES, NUM_OUTPUTS = 100, 251  # of DETR's panoptic models: 250 category ids and 'no object'
WIDTHS = (264, 264, 128, 64, 32, 16)  # of the mask head's convolutions, the first one's input first
GAINS = (
    ('input_proj.weight', 0.25),
    ('multihead_attn.in_proj_weight', 4.0),
    ('bbox_attention.q_linear.weight', 3.0),
    ('bbox_attention.k_linear.weight', 2.0),
    ('query_embed.weight', 2.0),
    ('adapter1.weight', 0.05),
    ('adapter2.weight', 0.05),
    ('adapter3.weight', 0.05),
)
GONE = ('_qcontent', '_qpos', '_kcontent', '_kpos', '_v_proj', 'query_scale', 'ref_point_head', 'sine_proj')


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor of DETR-R50 with masks."""
    result = weights.authors_shapes(50, NUM_OUTPUTS, NUM_QUERIES)
    result = {name: shape for name, shape in result.items() if not any(part in name for part in GONE)}
    for layer in range(6):
        at = f'transformer.decoder.layers.{layer}.'
        del result[f'{at}cross_attn.out_proj.weight'], result[f'{at}cross_attn.out_proj.bias']
        for attention in ('self_attn', 'multihead_attn'):
            result[f'{at}{attention}.in_proj_weight'] = (3 * DIMS, DIMS)
            result[f'{at}{attention}.in_proj_bias'] = (3 * DIMS,)
            result[f'{at}{attention}.out_proj.weight'] = (DIMS, DIMS)
            result[f'{at}{attention}.out_proj.bias'] = (DIMS,)
    result = {f'detr.{name}': shape for name, shape in result.items()}
    return {**result, **mask_shapes()}


def mask_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the mask head alone."""
    result: dict[str, tuple[int, ...]] = {}
    for name in ('q', 'k'):
        result[f'bbox_attention.{name}_linear.weight'] = (DIMS, DIMS)
        result[f'bbox_attention.{name}_linear.bias'] = (DIMS,)
    convolutions = {f'lay{index + 1}': (WIDTHS[index + 1], WIDTHS[index], 3, 3) for index in range(5)}
    convolutions.update({f'adapter{i + 1}': (WIDTHS[i + 2], 1024 // 2**i, 1, 1) for i in range(3)})
    convolutions['out_lay'] = (1, WIDTHS[-1], 3, 3)
    for name, shape in convolutions.items():
        result[f'mask_head.{name}.weight'], result[f'mask_head.{name}.bias'] = shape, shape[:1]
    for index in range(5):
        result[f'mask_head.gn{index + 1}.weight'] = result[f'mask_head.gn{index + 1}.bias'] = (WIDTHS[index + 1],)
    return result


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one tensor."""
    gain = next((gain for ending, gain in GAINS if name.endswith(ending)), 1.0)
    if name == 'mask_head.lay1.weight':  # else nothing is seen of attention maps, whose sum is one, beside features
        value = weights.tensor(name, shape)
        value[:, :DIMS] *= np.float32(0.04)
        value[:, DIMS:] *= np.float32(100.0)
        return value
    return weights.tensor(name.removeprefix('detr.'), shape) * np.float32(gain)


def state_dict() -> dict[str, np.ndarray]:
    """All tensors."""
    return {name: tensor(name, shape) for name, shape in shapes().items()}


def masks(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An ellipse in every box: (T, 4) cxcywh in fractions -> (T, height, width) bool."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    rows, columns = (rows + 0.5) / size[0], (columns + 0.5) / size[1]
    return np.stack([((columns - x) * 2 / w) ** 2 + ((rows - y) * 2 / h) ** 2 <= 1 for x, y, w, h in boxes])
