"""DAB-DETR checkpoints in its authors' format, made by the rule of weights.py."""

from __future__ import annotations

import numpy as np
import weights

DIMS = weights.EMBED_DIMS

# On top of the gains of weights.py: content that scales positions and boxes that move let float32's rounding grow, with
# these to 1e-5 in the logits.
FACTORS = (
    ('input_proj.weight', 0.125),
    ('encoder.query_scale.layers.1.weight', 0.2),
    ('self_attn.in_proj_weight', 0.5),
    ('bbox_embed.layers.2.weight', 0.25),
    ('ca_qpos_sine_proj.weight', 0.5),
    ('ca_kcontent_proj.weight', 0.6),
    ('ca_v_proj.weight', 0.4),
)


def shapes(num_patterns: int, num_classes: int = 91, num_queries: int = 300) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor of an R50; DC5 has the same ones."""
    result = weights.authors_shapes(50, num_classes, num_queries)
    del result['query_embed.weight']
    result['refpoint_embed.weight'] = (num_queries, 4)

    def mlp(name: str, *widths: int) -> None:
        for index, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            result[f'{name}.layers.{index}.weight'] = (outputs, inputs)
            result[f'{name}.layers.{index}.bias'] = (outputs,)

    mlp('transformer.encoder.query_scale', DIMS, DIMS, DIMS)
    mlp('transformer.decoder.ref_point_head', 2 * DIMS, DIMS, DIMS)
    mlp('transformer.decoder.ref_anchor_head', DIMS, DIMS, 2)
    mlp('transformer.decoder.bbox_embed', DIMS, DIMS, DIMS, 4)
    for part in ('encoder', 'decoder'):
        result.update({f'transformer.{part}.layers.{layer}.activation.weight': (1,) for layer in range(6)})
    if num_patterns:
        result['transformer.patterns.weight'] = (num_patterns, DIMS)
    return result


def denoising_shapes(num_queries: int, num_classes: int = 91) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor of a DN-DAB-DETR-R50: an embedding of every class and of 'unknown' on top."""
    return {**shapes(0, num_classes, num_queries), 'label_enc.weight': (num_classes + 1, DIMS - 1)}


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one tensor."""
    if name.endswith('activation.weight'):  # PReLU, far from the identity
        return weights.uniform(name, shape, 0.1, 0.4)
    if name == 'refpoint_embed.weight':
        return weights.uniform(name, shape, -1.7, 1.7)
    if name in ('transformer.patterns.weight', 'label_enc.weight'):
        return weights.uniform(name, shape, -1.0, 1.0)
    # The decoder refines anchors by the head's box MLP: its second copy is the first one.
    name = name.replace('transformer.decoder.bbox_embed', 'bbox_embed')
    factor = next((factor for ending, factor in FACTORS if name.endswith(ending)), 1.0)
    return weights.tensor(name, shape) * np.float32(factor)


def state_dict(num_patterns: int, saturated: bool = False) -> dict[str, np.ndarray]:
    """A full checkpoint's tensors in the authors' format (91 classes), as numpy arrays.

    Args:
        num_patterns: 0 for none.
        saturated: anchors' centres lie at the border of the image, their sizes are up to all of it: logits to +-9,
            where inverse_sigmoid gives at most 6.9.
    """
    state = {name: tensor(name, shape) for name, shape in shapes(num_patterns).items()}
    if saturated:
        anchors = state['refpoint_embed.weight']
        anchors[:, :2] *= np.float32(9 / 1.7)
        anchors[:, 2:] = anchors[:, 2:] * np.float32(3) + np.float32(3.9)
    return state
