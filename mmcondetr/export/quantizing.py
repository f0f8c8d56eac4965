"""Quantises the backbone to int8: it takes three quarters of an R50's time, and is the only part that 8 bits suit.

Transformer and head stay in float: attention's softmax and the boxes' logits span ranges too large for 8 bits. So does
the backbone's first convolution, whose error every later layer inherits (AP and time: docs/deploy.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mmcondetr.errors import UserError
from mmcondetr.export.formats import save_openvino
from mmcondetr.runtime.images import resize_image, stack_images
from mmcondetr.runtime.metadata import Metadata
from mmcondetr.runtime.sessions import INPUTS


def quantize_backbone(
    source: Path, images: Sequence[np.ndarray], metadata: Metadata, report: Callable[[str], None] = print
) -> Path:
    """Quantise weights and activations of the backbone's convolutions, except the first, with NNCF.

    Args:
        source: an OpenVINO model in float32.
        images: used to estimate the ranges of activations, after the metadata's resize rule.
        metadata: of the new file.
        report: receives a line for the user.

    Returns:
        The new file, beside ``source``.

    Raises:
        UserError: nncf is not installed, or nothing was quantised.
    """
    try:
        import nncf
    except ImportError as error:
        raise UserError('nncf is not installed: pip install "mmcondetr[openvino]".') from error
    import openvino

    def prepare(image: np.ndarray) -> dict[str, np.ndarray]:
        batch, sizes = stack_images([resize_image(image, metadata.resize)], metadata.pad_size_divisor)
        return dict(zip(INPUTS, (batch, sizes, np.array([image.shape[:2]]))))

    nncf.set_log_level('ERROR')
    model = openvino.Core().read_model(source)
    inside = backbone_nodes(model)
    ordered = [
        node for node in model.get_ordered_ops() if node.get_type_name() not in ('Constant', 'Parameter', 'Result')
    ]
    outside = [node.get_friendly_name() for node in ordered if node.get_friendly_name() not in inside]
    convolutions = [node.get_friendly_name() for node in ordered if node.get_type_name() == 'Convolution']
    outside += [name for name in convolutions if name in inside][:1]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(images), prepare),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,  # signed if values are negative, as after a residual's sum
        ignored_scope=nncf.IgnoredScope(names=outside, validate=False),
    )
    count = count_int8_convolutions(quantized)
    if not count:
        raise UserError('--int8: no convolution of this backbone could be quantised.')
    report(f'convolutions with 8-bit weights: {count}')
    return save_openvino(quantized, source.with_name('int8.xml'), metadata)


def backbone_nodes(model) -> set[str]:
    """Names of the nodes from which the neck's convolution is computed: the backbone.

    The neck's is the last convolution before the encoder's first softmax; a mask head has convolutions, too, after it.
    """
    ordered = list(model.get_ordered_ops())
    ancestors = [_ancestors(node) for node in ordered if node.get_type_name() == 'Softmax']
    convolutions = [
        [node for node in ordered if node.get_type_name() == 'Convolution' and node.get_friendly_name() in names]
        for names in ancestors
    ]
    # Attention among queries has no convolution before it, and the encoder's first has the fewest.
    encoder = min((found for found in convolutions if found), key=len, default=[])
    return _ancestors(encoder[-1].input_value(0).get_node()) if encoder else set()


def _ancestors(node) -> set[str]:
    """Names of the node and of everything that it is computed from."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in found:
            found.add(node.get_friendly_name())
            waiting.extend(value.get_node() for value in node.input_values())
    return found


def count_int8_convolutions(model) -> int:
    """How many convolutions store their weights in 8 bits."""
    count = 0
    for node in model.get_ops():
        if node.get_type_name() == 'Convolution':
            weight = node.input_value(1).get_node()
            while weight.get_type_name() != 'Constant' and weight.inputs():
                weight = weight.input_value(0).get_node()
            count += weight.get_element_type().to_string() in ('i8', 'u8')
    return count
