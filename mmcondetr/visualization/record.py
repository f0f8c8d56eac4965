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
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcondetr.engine.errors import UserError
from mmcondetr.models.attention import FirstConditionalCrossAttention
from mmcondetr.visualization.image_attention import ImageAttention
from mmcondetr.visualization.listening import choose_listener
from mmcondetr.visualization.maps import AttentionParts, TokenGrid, check_indices


class Predictions(NamedTuple):
    """What the head makes of every decoder layer.

    Attributes:
        scores: (L, B, N, classes), probabilities without background.
        boxes: (L, B, N, 4), cxcywh in fractions of the unpadded image.
        references: (L, B, N, 2 or 4), points or anchor boxes in fractions; None for a model without them.
    """

    scores: Tensor
    boxes: Tensor
    references: Tensor | None


class Recorded:
    """The last forward pass: ``recorded[image]`` gives the attention of one image of its batch.

    Attributes:
        decoder: cross-attention by layer, of the layers asked for.
        encoder: self-attention by layer, of the layers asked for.
        num_encoder_layers: how many the model has.
        positioned: decoder layers whose content map includes added positions (the first layer's, §3.5).
        predictions: of all decoder layers and queries.
    """

    def __init__(self) -> None:
        self.decoder: dict[int, AttentionParts] = {}
        self.encoder: dict[int, AttentionParts] = {}
        self.positioned: frozenset[int] = frozenset()
        self.num_encoder_layers = 0
        self.predictions: Predictions | None = None
        self._tokens: tuple[int, int] = (0, 0)
        self._input_shape: tuple[int, int] = (0, 0)
        self._image_shapes: list[tuple[tuple[int, int], tuple[int, int]]] = []

    def __len__(self) -> int:
        """Images in the last batch; 0 before a forward pass."""
        return 0 if self.predictions is None else len(self._image_shapes)

    def __getitem__(self, image: int) -> ImageAttention:
        """The attention of one image.

        Raises:
            UserError: nothing has been recorded yet.
            IndexError: the batch has no such image.
        """
        if not len(self):
            raise UserError('Nothing is recorded yet: run the model inside "with record_attention(model)".')
        image = range(len(self))[image]
        return ImageAttention(self, image, self._grid(image))

    def _grid(self, image: int) -> TokenGrid:
        rows, columns = self._tokens
        masks = [parts.mask for parts in (*self.decoder.values(), *self.encoder.values()) if parts.mask is not None]
        img_shape, ori_shape = self._image_shapes[image]
        valid = (rows, columns)
        if masks:
            inside = ~masks[0][image].view(rows, columns)
            valid = (int(inside.any(dim=1).sum()), int(inside.any(dim=0).sum()))
        return TokenGrid((rows, columns), valid, self._input_shape, img_shape, ori_shape)

    def note_inputs(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Pre-hook of the detector: sizes of the batch and of its images."""
        inputs = kwargs.get('inputs', args[0] if args else None)
        samples = kwargs.get('data_samples', args[1] if len(args) > 1 else None)
        self._input_shape = tuple(inputs.shape[-2:])
        shapes = [self._input_shape] * len(inputs) if samples is None else [s.img_shape[:2] for s in samples]
        originals = shapes if samples is None else [
            s.metainfo.get('ori_shape', shape)[:2] for s, shape in zip(samples, shapes)]
        self._image_shapes = [(tuple(shape), tuple(original)) for shape, original in zip(shapes, originals)]

    def note_features(self, neck: nn.Module, args: tuple, output: Sequence[Tensor]) -> None:
        """Hook of the neck: the token grid is its last feature map."""
        self._tokens = tuple(output[-1].shape[-2:])

    def note_predictions(self, head: nn.Module, output: Tensor | tuple[Tensor, ...]) -> None:
        """Predict from every decoder layer's output, (hidden states, references) or hidden states alone."""
        outputs = output if isinstance(output, tuple) else (output, )
        with torch.no_grad():
            logits, boxes = (value.float() for value in head(*outputs))
        sigmoid = getattr(head.loss_cls, 'use_sigmoid', True)
        scores = logits.sigmoid() if sigmoid else logits.softmax(dim=-1)[..., :-1]
        references = None
        if len(outputs) > 1:
            references = outputs[1].detach().float().sigmoid()
            references = references.expand(*boxes.shape[:3], -1)  # (L, B, N, 2 or 4), whatever the layers share
        self.predictions = Predictions(scores.detach(), boxes.detach(), references)


@contextmanager
def record_attention(model: nn.Module,
                     layers: Sequence[int] | None = None,
                     queries: Sequence[int] | None = None,
                     encoder_layers: Sequence[int] = ()) -> Iterator[Recorded]:
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
        attach(model.decoder.register_forward_hook(
            lambda module, args, output: recorded.note_predictions(model.bbox_head, output)))
        modules = [layer.cross_attn for layer in model.decoder.layers]
        recorded.positioned = frozenset(
            index for index, module in enumerate(modules) if isinstance(module, FirstConditionalCrossAttention))
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
