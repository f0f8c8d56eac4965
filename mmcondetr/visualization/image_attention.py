"""The recorded attention of one image: maps, boxes, scores and reference points, in the original image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcondetr.errors import UserError
from mmcondetr.visualization.maps import (
    AttentionMaps,
    AttentionParts,
    TokenGrid,
    check_indices,
    compute_combined,
    compute_maps,
)


class ImageAttention:
    """The attention that :func:`~mmcondetr.visualization.record_attention` recorded for one image.

    Args:
        recorded: the forward pass.
        image: index into its batch.
        grid: location of the image's tokens.
    """

    def __init__(self, recorded: Recorded, image: int, grid: TokenGrid) -> None:
        self._recorded = recorded
        self._image = image
        self.grid = grid

    @property
    def num_layers(self) -> int:
        """L, including layers that were not recorded."""
        return len(self._recorded.predictions.boxes)

    @property
    def num_queries(self) -> int:
        """N."""
        return self._recorded.predictions.boxes.shape[2]

    @property
    def num_heads(self) -> int:
        """H of the decoder's cross-attention."""
        return next(iter(self._recorded.decoder.values())).num_heads

    @property
    def is_additive(self) -> bool:
        """Whether positions are added to contents before they are projected, as in DETR."""
        return next(iter(self._recorded.decoder.values())).additive

    @property
    def layers(self) -> list[int]:
        """The recorded decoder layers."""
        return sorted(self._recorded.decoder)

    @property
    def scores(self) -> Tensor:
        """(L, N, classes): class scores predicted from every layer's output."""
        return self._recorded.predictions.scores[:, self._image]

    @property
    def boxes(self) -> Tensor:
        """(L, N, 4): boxes predicted from every layer's output, xyxy in pixels of the original image."""
        centre, size = self._recorded.predictions.boxes[:, self._image].split(2, dim=-1)
        return torch.cat((centre - size / 2, centre + size / 2), dim=-1) * self._size.repeat(2)

    @property
    def references(self) -> Tensor | None:
        """(L, N, 2): the reference points used by every layer, in pixels; None for a model without them."""
        references = self._recorded.predictions.references
        return None if references is None else references[:, self._image, :, :2] * self._size

    def content_includes_position(self, layer: int) -> bool:
        """Whether positions are added to the content query and key, as in Conditional DETR's first layer (§3.5)."""
        return self._index(layer) in self._recorded.positioned

    def maps(
        self, layer: int = -1, queries: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> AttentionMaps:
        """Spatial, content and combined cross-attention maps without padding: (Q, H, h, w) each.

        In the first layer the content map includes the positions that are added to its query and key; see
        :meth:`content_includes_position`.

        Args:
            layer: decoder layer, negative from the end.
            queries: object queries; all recorded ones if None.
            heads: all if None.

        Raises:
            UserError: the layer or a query was not recorded, or does not exist.
        """
        parts = self._parts(layer)
        return compute_maps(parts, self._image, self._rows(parts, queries), self._heads(parts, heads), self.grid)

    def combined(
        self, layer: int = -1, queries: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> Tensor:
        """Combined maps (Q, H, h, w), also for attention that does not separate content and position."""
        parts = self._parts(layer)
        return compute_combined(parts, self._image, self._rows(parts, queries), self._heads(parts, heads), self.grid)

    def encoder_maps(
        self, points: Sequence[tuple[float, float]], layer: int = -1, heads: Sequence[int] | None = None
    ) -> Tensor:
        """Encoder self-attention of the tokens at ``points``, (x, y) in pixels of the original image: (P, H, h, w).

        Raises:
            UserError: the layer was not recorded (``encoder_layers`` of record_attention), or a point is outside.
        """
        kept = self._recorded.encoder
        index = layer + self._recorded.num_encoder_layers if layer < 0 else layer
        if index not in kept:
            raise UserError(f'Encoder layer {layer} was not recorded; recorded are {sorted(kept)}.')
        rows = [self.grid.token_at(x, y) for x, y in points]
        return compute_combined(kept[index], self._image, rows, self._heads(kept[index], heads), self.grid)

    def resize(self, maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Interpolate maps to the size of the original image, or to ``size`` (height, width).

        (..., h, w) -> (..., height, width).
        """
        return self.grid.resize(maps, size)

    @property
    def _size(self) -> Tensor:
        height, width = self.grid.ori_shape
        return self._recorded.predictions.boxes.new_tensor([width, height])

    def _index(self, layer: int) -> int:
        check_indices('decoder layer', [layer + self.num_layers if layer < 0 else layer], self.num_layers)
        return layer % self.num_layers

    def _parts(self, layer: int) -> AttentionParts:
        index = self._index(layer)
        if index not in self._recorded.decoder:
            raise UserError(f'Decoder layer {index} was not recorded; recorded are {self.layers}.')
        return self._recorded.decoder[index]

    def _rows(self, parts: AttentionParts, queries: Sequence[int] | None) -> list[int]:
        if queries is None:
            return list(range(parts.queries[0].shape[1]))
        check_indices('query', queries, self.num_queries)
        if parts.rows is None:
            return list(queries)
        missing = sorted(set(queries) - set(parts.rows))
        if missing:
            raise UserError(f'Queries {missing} were not recorded; recorded are {sorted(parts.rows)}.')
        return [parts.rows.index(query) for query in queries]

    @staticmethod
    def _heads(parts: AttentionParts, heads: Sequence[int] | None) -> list[int]:
        if heads is None:
            return list(range(parts.num_heads))
        check_indices('head', heads, parts.num_heads)
        return list(heads)


class Predictions(NamedTuple):
    """The head's predictions from every decoder layer.

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
        decoder: cross-attention of the recorded layers, by index.
        encoder: self-attention of the recorded layers, by index.
        num_encoder_layers: number of encoder layers of the model.
        positioned: decoder layers whose content map includes added positions (the first layer, §3.5).
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
        """Number of images in the last batch; 0 before the first forward pass."""
        return 0 if self.predictions is None else len(self._image_shapes)

    def __getitem__(self, image: int) -> ImageAttention:
        """The attention of one image.

        Raises:
            UserError: nothing has been recorded yet.
            IndexError: the batch has no such image.
        """
        if not len(self):
            raise UserError('Nothing has been recorded yet: run the model inside "with record_attention(model)".')
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

    def record_inputs(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Pre-hook of the detector: sizes of the batch and of its images."""
        inputs = kwargs.get('inputs', args[0] if args else None)
        samples = kwargs.get('data_samples', args[1] if len(args) > 1 else None)
        self._input_shape = tuple(inputs.shape[-2:])
        shapes = [self._input_shape] * len(inputs) if samples is None else [s.img_shape[:2] for s in samples]
        originals = (
            shapes if samples is None else [s.metainfo.get('ori_shape', shape)[:2] for s, shape in zip(samples, shapes)]
        )
        self._image_shapes = [(tuple(shape), tuple(original)) for shape, original in zip(shapes, originals)]

    def record_features(self, neck: nn.Module, args: tuple, output: Sequence[Tensor]) -> None:
        """Hook of the neck: the token grid is its last feature map."""
        self._tokens = tuple(output[-1].shape[-2:])

    def record_predictions(self, head: nn.Module, output: Tensor | tuple[Tensor, ...]) -> None:
        """Predict from every decoder layer's output, (hidden states, references) or hidden states alone."""
        outputs = output if isinstance(output, tuple) else (output,)
        with torch.no_grad():
            logits, boxes = (value.float() for value in head(*outputs))
        sigmoid = getattr(head.loss_cls, 'use_sigmoid', True)
        scores = logits.sigmoid() if sigmoid else logits.softmax(dim=-1)[..., :-1]
        references = None
        if len(outputs) > 1:
            references = outputs[1].detach().float().sigmoid()
            references = references.expand(
                *boxes.shape[:3], -1
            )  # (L, B, N, 2 or 4), also if layers or images share them
        self.predictions = Predictions(scores.detach(), boxes.detach(), references)
