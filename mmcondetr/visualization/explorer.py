"""The explorer: one self-contained page with the attention of an image's detections, layer by layer.

The page contains the image, the boxes of every layer, and all maps of the detections: one byte per token, gzipped, as
``maps[detection][layer][kind][head][row][column]`` = 255 * sqrt(weight / largest weight of the map), and the largest
weights as float32 in ``peaks[detection][layer][kind][head]``. It makes no network requests, which its
Content-Security-Policy forbids. Its parts are in explorer/: page.html, page.css, maps.js and page.js.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps
from torch import nn

from mmcondetr.visualization.attend import AttendedImage, Detection, Image, attend
from mmcondetr.visualization.image_attention import ImageAttention
from mmcondetr.visualization.maps import KINDS
from mmcondetr.visualization.mask_pictures import find_masks, mask_source
from mmcondetr.visualization.panels import COLOUR_MAP
from mmcondetr.visualization.record import resolve_layers
from mmcondetr.writing import replacing

FLOOR = 0.05  # lower scores are almost never objects
LARGEST_SIDE = 1280  # of the image in the page, in pixels
LARGEST_MAPS = 4_000_000  # bytes of maps before compression; a DC5 model's detection takes 482 400 of them
NOTES = (
    'Where the query expects its object: softmax(p_q · p_k).',
    'What the query looks for: softmax(c_q · c_k).',
    'What the layer attends with: softmax(c_q · c_k + p_q · p_k).',
)
ADDITIVE_NOTES = (
    'DETR adds positions to contents; the part of positions: softmax((o_q + c_q) · p_k).',
    'DETR adds positions to contents; the part of contents: softmax((o_q + c_q) · c_k).',
    'What the layer attends with: softmax((o_q + c_q) · (c_k + p_k)).',
)
POSITIONED = 'In this first layer positions are added to the content query and key, so this map is spatial too (§3.5).'


def write_explorer(
    model: nn.Module,
    image: Image,
    out_html: str | os.PathLike,
    count: int = 40,
    score_threshold: float = 0.3,
    query: int | None = None,
    layers: Sequence[int] | None = None,
    title: str | None = None,
) -> list[Detection]:
    """Write the explorer page of one image.

    Args:
        model: a detector built by ``mmdet.apis.init_detector``.
        image: a path, or an array (height, width, 3) BGR.
        out_html: the file to write.
        count: maximum number of detections; fewer if the page would become too large (DC5: 8).
        score_threshold: minimum score of the detections shown initially; a slider lowers it to FLOOR.
        query: show only this object query instead.
        layers: decoder layers to show; all if None.
        title: of the page; the model's class and the image's name if None.

    Returns:
        The detections in the page, best first.

    Raises:
        UserError: no detection reaches the floor; query or layer does not exist; the image cannot be read; the
            model is not supported.
    """
    attended = attend(model, image, layers=layers)
    shown = resolve_layers('decoder layer', layers, attended.attention.num_layers)
    rows, columns = attended.attention.grid.valid
    floor = min(FLOOR, score_threshold)
    size = len(shown) * len(KINDS) * attended.attention.num_heads * rows * columns
    count = min(count, max(1, LARGEST_MAPS // size))
    found = [attended.detection(query)] if query is not None else attended.best_detections(count, floor)
    if title is None:
        name = 'image' if isinstance(image, np.ndarray) else os.path.basename(os.fspath(image))
        title = f'{type(model).__name__} on {name}'
    data = _page_data(attended, found, shown, title)
    for detection, mask in zip(data['detections'], find_masks(model, attended.pixels, [one.query for one in found])):
        detection['mask'] = mask_source(mask)
    page = _fill_page(dict(data, threshold=_start(found, score_threshold), floor=floor))
    path = Path(out_html)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding='utf-8', errors='xmlcharrefreplace')  # names of files may be no text
    return found


def _start(found: Sequence[Detection], score_threshold: float) -> float:
    """The threshold, or the best score if none reaches it; in whole percent, like the slider."""
    return int(100 * min(score_threshold, found[0].score)) / 100


def _page_data(attended: AttendedImage, found: Sequence[Detection], layers: Sequence[int], title: str) -> dict:
    """The page's data as JSON; lengths are in pixels of the original image."""
    attention = attended.attention
    maps, peaks = _pack_maps(attention, [detection.query for detection in found], layers)
    height, width = attention.grid.ori_shape
    cell_height, cell_width = attention.grid.cell
    rows, columns = attention.grid.valid
    return dict(
        title=title,
        image=dict(width=width, height=height, src=_image_source(attended.pixels)),
        grid=dict(rows=rows, columns=columns, cellWidth=cell_width, cellHeight=cell_height),
        heads=attention.num_heads,
        layers=list(layers),
        notes={layer: _notes(attention, layer) for layer in layers},
        colours=_encode((np.array(colormaps[COLOUR_MAP](range(256)))[:, :3] * 255).round().astype(np.uint8)),
        detections=[_detection_data(attended, detection, layers) for detection in found],
        maps=base64.b64encode(gzip.compress(maps.tobytes(), 9, mtime=0)).decode(),
        peaks=_encode(peaks),
    )


def _pack_maps(
    attention: ImageAttention, queries: Sequence[int], layers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Maps (detections, layers, kinds, H, h, w) as bytes, and their largest weights (detections, layers, kinds, H)."""
    weights = np.stack(
        [
            np.stack([getattr(maps, kind).cpu().numpy() for kind in KINDS], axis=1)
            for maps in (attention.maps(layer, queries) for layer in layers)
        ],
        axis=1,
    )
    peaks = weights.max(axis=(-2, -1)).astype('<f4')
    quantised = np.sqrt(weights / np.maximum(peaks, 1e-30)[..., None, None]) * 255
    return quantised.round().astype(np.uint8), peaks


def _detection_data(attended: AttendedImage, detection: Detection, layers: Sequence[int]) -> dict:
    attention, query = attended.attention, detection.query
    by_layer = []
    for layer in layers:
        scores = attention.scores[layer, query]
        label = int(scores.argmax())
        by_layer.append(
            dict(
                box=_rounded(attention.boxes[layer, query].tolist()),
                name=attended.class_name(label),
                score=round(float(scores[label]), 4),
                own_score=round(float(scores[detection.label]), 4),  # of the last layer's class
                reference=None
                if attention.references is None
                else _rounded(attention.references[layer, query].tolist()),
            )
        )
    return dict(query=query, name=detection.name, score=round(detection.score, 4), layers=by_layer)


def _notes(attention: ImageAttention, layer: int) -> list[str]:
    if attention.is_additive:
        return list(ADDITIVE_NOTES)
    spatial, content, combined = NOTES
    return [spatial, POSITIONED if attention.content_includes_position(layer) else content, combined]


def _image_source(pixels: np.ndarray) -> str:
    """A data URI: PNG for a small image, JPEG for others."""
    scale = min(1.0, LARGEST_SIDE / max(pixels.shape[:2]))
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    kind, options = ('png', []) if max(pixels.shape) <= 256 else ('jpeg', [cv2.IMWRITE_JPEG_QUALITY, 88])
    encoded = cv2.imencode(f'.{kind}', pixels, options)[1]
    return f'data:image/{kind};base64,{_encode(encoded)}'


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


def _fill_page(data: dict) -> str:
    """Fill style, scripts and data into the template."""
    folder = resources.files('mmcondetr.visualization') / 'explorer'
    page, style, maps, steering = (
        (folder / name).read_text(encoding='utf-8') for name in ('page.html', 'page.css', 'maps.js', 'page.js')
    )
    # Escape "<", so that the data cannot end its script element.
    text = json.dumps(data, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
    page = page.replace('/*{style}*/', style).replace('/*{script}*/', maps + steering)
    return page.replace('/*{data}*/', text)
