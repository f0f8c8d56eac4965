"""The paper's attention figures: Figure 4 (spatial, content, combined) and Figure 1 (comparing models)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmdet.structures.bbox import bbox_overlaps
from torch import nn

from mmcondetr.errors import UserError
from mmcondetr.visualization.attend import AttendedImage, Detection, Image, attend
from mmcondetr.visualization.maps import KINDS, check_indices
from mmcondetr.visualization.panels import Row, draw_rows

SYMBOLS = dict(spatial=r'$p_q^\top p_k$', content=r'$c_q^\top c_k$', combined=r'$c_q^\top c_k + p_q^\top p_k$')
ADDITIVE_SYMBOLS = dict(
    spatial=r'$(o_q + c_q)^\top p_k$', content=r'$(o_q + c_q)^\top c_k$', combined=r'$(o_q + c_q)^\top (c_k + p_k)$'
)


def draw_attention(
    model: nn.Module,
    image: Image,
    out_png: str | os.PathLike,
    query: int | None = None,
    layer: int = -1,
    heads: Sequence[int] | None = None,
    count: int = 1,
    score_threshold: float = 0.3,
) -> list[Detection]:
    """Draw Figure 4: spatial, content and combined maps (rows) of each head (columns), with box and reference point.

    Args:
        model: a detector built by ``mmdet.apis.init_detector``.
        image: a path, or an array (height, width, 3) BGR.
        out_png: the file to write.
        query: the object query to draw; the ``count`` best detections if None.
        layer: decoder layer, negative from the end.
        heads: all if None.
        count: number of detections to draw.
        score_threshold: minimum score of these detections.

    Returns:
        The detections drawn, from top to bottom.

    Raises:
        UserError: no detection reaches the threshold; query, layer or head does not exist; the image cannot be read;
            the model is not supported.

    Paper: §3.4, Figure 4.
    """
    attended = attend(model, image, layers=[layer])
    found = _choose(attended, query, count, score_threshold)
    check_indices('head', heads or (), attended.attention.num_heads)
    layer = attended.attention.layers[0]
    symbols = _symbols(attended)
    rows = []
    for detection in found:
        maps = attended.attention.maps(layer, [detection.query], heads)
        for kind in KINDS:
            note = (
                '\n(positions added)'
                if kind == 'content' and attended.attention.content_includes_position(layer)
                else ''
            )
            rows.append(
                Row(
                    f'{kind}\n{symbols[kind]}{note}',
                    attended,
                    detection,
                    getattr(maps, kind)[0],
                    _reference(attended, layer, detection.query),
                )
            )
    title = f'Attention weights of decoder layer {layer} (of 0 to {attended.attention.num_layers - 1})'
    draw_rows(rows, _head_titles(heads, attended), title, out_png)
    return found


def draw_comparison(
    models: Sequence[tuple[str, nn.Module]],
    image: Image,
    out_png: str | os.PathLike,
    query: int | None = None,
    layer: int = -1,
    heads: Sequence[int] | None = None,
    score_threshold: float = 0.3,
) -> list[Detection]:
    """Draw Figure 1: a row of spatial attention maps per model, for the same object.

    The object is the first model's best detection (or ``query``). For each other model, the query whose box overlaps it
    most is drawn. DETR's spatial map is softmax((o_q + c_q) . p_k).

    Args:
        models: titles and detectors, such as [('Conditional DETR', model), ('DETR', other)].
        image: a path, or an array (height, width, 3) BGR.
        out_png: the file to write.
        query: object query of the first model.
        layer: decoder layer, negative from the end.
        heads: all if None.
        score_threshold: minimum score of the first model's detection.

    Returns:
        The detection drawn for each model.

    Raises:
        UserError: see :func:`draw_attention`.

    Paper: §1, Figure 1.
    """
    rows: list[Row] = []
    for title, model in models:
        attended = attend(model, image, layers=[layer])
        if rows:
            query = _closest_query(attended, rows[0].detection)
        detection = _choose(attended, query, 1, score_threshold)[0]
        index = attended.attention.layers[0]
        maps = attended.attention.maps(index, [detection.query], heads).spatial[0]
        reference = _reference(attended, index, detection.query)
        symbol = _symbols(attended)['spatial']
        rows.append(Row(f'{title}\n{symbol}', attended, detection, maps, reference))
    if len({len(row.maps) for row in rows}) > 1:
        raise UserError(
            f'The models have {", ".join(str(len(row.maps)) for row in rows)} heads: pass '
            f'"heads" that exist in all of them.'
        )
    where = 'the last decoder layer' if layer == -1 else f'decoder layer {layer}'
    draw_rows(rows, _head_titles(heads, rows[0].attended), f'Spatial attention weights of {where}', out_png)
    return [row.detection for row in rows]


def _choose(attended: AttendedImage, query: int | None, count: int, score_threshold: float) -> list[Detection]:
    if query is not None:
        return [attended.detection(query)]
    return attended.best_detections(count, score_threshold)


def _closest_query(attended: AttendedImage, detection: Detection) -> int:
    """The query whose box overlaps a detection most, preferring confident ones among similar overlaps."""
    boxes = attended.attention.boxes[-1]
    overlaps = bbox_overlaps(boxes, boxes.new_tensor([detection.box]))[:, 0]
    return int((overlaps + 0.1 * attended.attention.scores[-1].max(dim=-1).values).argmax())


def _symbols(attended: AttendedImage) -> dict[str, str]:
    return ADDITIVE_SYMBOLS if attended.attention.is_additive else SYMBOLS


def _reference(attended: AttendedImage, layer: int, query: int) -> tuple[float, float] | None:
    references = attended.attention.references
    return None if references is None else tuple(references[layer, query].tolist())


def _head_titles(heads: Sequence[int] | None, attended: AttendedImage) -> list[str]:
    indices = range(attended.attention.num_heads) if heads is None else heads
    return [f'head {head}' for head in indices]
