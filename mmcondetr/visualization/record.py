"""Recording attention: ``with record_attention(model) as recorded`` keeps what the maps can be computed from.

While recording, forward pre-hooks note the projected queries and keys that go into every attention module, and the
decoder's output. The model's own computation, fused attention included, is not touched. Maps are computed from those
notes when they are asked for, so that the memory grows with tokens plus queries, not with their product: a DC5 layer
(3350 tokens, 300 queries) takes 7 MB.

Supported are mmcondetr's detectors and mmdet's own DETR (for the comparison of Figure 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from mmcondetr.models.attention import FirstConditionalCrossAttention
from mmcondetr.visualization.hooks import choose_listener
from mmcondetr.visualization.image_attention import Recorded
from mmcondetr.visualization.maps import AttentionParts, check_indices


@contextmanager
def record_attention(
    model: nn.Module,
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
    encoder_layers: Sequence[int] = (),
) -> Iterator[Recorded]:
    """Record the attention of every forward pass inside the block; the last one is kept.

    Example::

        with record_attention(model, layers=[-1]) as recorded:
            model.test_step(data)
        image = recorded[0]
        maps = image.maps(layer=-1, queries=[7])   # .spatial, .content, .combined: (1, H, h, w)
        image.resize(maps.spatial)                 # (1, H, height, width) of the original image

    Args:
        model: an mmcondetr detector, or mmdet's DETR.
        layers: decoder layers to keep, negative from the end; all where None.
        queries: object queries to keep; all where None.
        encoder_layers: encoder layers to keep, negative from the end.

    Yields:
        What is recorded; it stays usable after the block.

    Raises:
        UserError: the model is of another kind, or a layer does not exist; while the model runs, if a query does not.
    """
    model = getattr(model, 'module', model)  # a distributed wrapper
    listen = choose_listener(model)
    recorded = Recorded()
    rows = None if queries is None else tuple(queries)
    with ExitStack() as hooks:

        def attach(handle) -> None:
            hooks.callback(handle.remove)

        attach(model.register_forward_pre_hook(recorded.note_inputs, with_kwargs=True))
        attach(model.neck.register_forward_hook(recorded.note_features))
        attach(
            model.decoder.register_forward_hook(
                lambda module, args, output: recorded.note_predictions(model.bbox_head, output)
            )
        )
        modules = [layer.cross_attn for layer in model.decoder.layers]
        recorded.positioned = frozenset(
            index for index, module in enumerate(modules) if isinstance(module, FirstConditionalCrossAttention)
        )
        for index in resolve_layers('decoder layer', layers, len(modules)):
            attach(listen(modules[index], _keeper(recorded.decoder, index, rows)))
        modules = [layer.self_attn for layer in model.encoder.layers]
        recorded.num_encoder_layers = len(modules)
        for index in resolve_layers('encoder layer', encoder_layers, len(modules)):
            attach(listen(modules[index], _keeper(recorded.encoder, index, None)))
        yield recorded


def resolve_layers(what: str, layers: Sequence[int] | None, count: int) -> list[int]:
    """Layer indices counted from the start, without repetition.

    Raises:
        UserError: one does not exist.
    """
    if layers is None:
        return list(range(count))
    check_indices(what, [layer + count if layer < 0 else layer for layer in layers], count)
    return sorted({layer % count for layer in layers})


def _keeper(kept: dict[int, AttentionParts], index: int, rows: tuple[int, ...] | None) -> Callable:
    def keep(parts: AttentionParts) -> None:
        kept[index] = parts.keep(rows)

    return keep
