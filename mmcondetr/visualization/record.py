"""Recording attention: ``with record_attention(model) as recorded``.

Forward pre-hooks store the projected queries and keys of each attention module, and the decoder's output. The model's
own computation, including fused attention, does not change. Maps are computed on demand, so memory grows with tokens
plus queries instead of their product: a DC5 layer (3350 tokens, 300 queries) takes 7 MB.

Supported are mmcondetr's detectors and mmdet's DETR (for the comparison in Figure 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from mmcondetr.models.attention import FirstConditionalCrossAttention
from mmcondetr.visualization.hooks import choose_hook
from mmcondetr.visualization.image_attention import Recorded
from mmcondetr.visualization.maps import AttentionParts, check_indices


@contextmanager
def record_attention(
    model: nn.Module,
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
    encoder_layers: Sequence[int] = (),
) -> Iterator[Recorded]:
    """Record attention in a ``with`` block; each forward pass replaces the previous one.

    Example::

        with record_attention(model, layers=[-1]) as recorded:
            model.test_step(data)
        image = recorded[0]
        maps = image.maps(layer=-1, queries=[7])   # .spatial, .content, .combined: (1, H, h, w)
        image.resize(maps.spatial)                 # (1, H, height, width) of the original image

    Args:
        model: an mmcondetr detector, or mmdet's DETR.
        layers: decoder layers to record, negative from the end; all if None.
        queries: object queries to record; all if None.
        encoder_layers: encoder layers to record, negative from the end.

    Yields:
        The recorded attention, which remains usable after the block.

    Raises:
        UserError: the model is not supported, or a layer does not exist; when the model runs: a query does not exist.
    """
    model = getattr(model, 'module', model)  # a distributed wrapper
    attach_hook = choose_hook(model)
    recorded = Recorded()
    rows = None if queries is None else tuple(queries)
    with ExitStack() as hooks:

        def attach(handle) -> None:
            hooks.callback(handle.remove)

        attach(model.register_forward_pre_hook(recorded.record_inputs, with_kwargs=True))
        attach(model.neck.register_forward_hook(recorded.record_features))
        attach(
            model.decoder.register_forward_hook(
                lambda module, args, output: recorded.record_predictions(model.bbox_head, output)
            )
        )
        modules = [layer.cross_attn for layer in model.decoder.layers]
        recorded.positioned = frozenset(
            index for index, module in enumerate(modules) if isinstance(module, FirstConditionalCrossAttention)
        )
        for index in resolve_layers('decoder layer', layers, len(modules)):
            attach(attach_hook(modules[index], _keeper(recorded.decoder, index, rows)))
        modules = [layer.self_attn for layer in model.encoder.layers]
        recorded.num_encoder_layers = len(modules)
        for index in resolve_layers('encoder layer', encoder_layers, len(modules)):
            attach(attach_hook(modules[index], _keeper(recorded.encoder, index, None)))
        yield recorded


def resolve_layers(what: str, layers: Sequence[int] | None, count: int) -> list[int]:
    """Layer indices counted from the start, without repetition.

    Raises:
        UserError: a layer does not exist.
    """
    if layers is None:
        return list(range(count))
    check_indices(what, [layer + count if layer < 0 else layer for layer in layers], count)
    return sorted({layer % count for layer in layers})


def _keeper(kept: dict[int, AttentionParts], index: int, rows: tuple[int, ...] | None) -> Callable:
    def keep(parts: AttentionParts) -> None:
        kept[index] = parts.keep(rows)

    return keep
