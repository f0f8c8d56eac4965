"""Panoptic maps as COCO's panoptic JSON and PNGs, which panoptic tools and our data set read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mmcondetr.datasets.panoptic_png import describe_segment, write_panoptic_png
from mmcondetr.inference.detections import Detections
from mmcondetr.writing import replacing


class PanopticWriter:
    """Writes the panoptic map of each image as a PNG, and collects their segments.

    Args:
        class_names: of the model, by label, things first; category ids start from 1 in this order.
        num_things: the number of things.
        path: of the JSON. The PNGs are written to the folder of the same name without its suffix.
    """

    def __init__(self, class_names: tuple[str, ...], num_things: int, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.folder = self.path.with_suffix('')
        self._class_names, self._num_things = class_names, num_things
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._taken: set[str] = set()

    def add(self, file_name: str, found: Detections, **more: Any) -> None:
        """Write the PNG of one image; ``more`` is added to its entry, such as the frame number in a video.

        Raises:
            UserError: The PNG could not be written.
        """
        image_id, (width, height) = len(self.images) + 1, found.size
        self.images.append(dict(id=image_id, file_name=file_name, width=width, height=height, **more))
        png = f'{os.path.splitext(file_name)[0]}.png'
        if '#' in file_name:  # a frame of a video
            png = f'{file_name}.png'
        while png in self._taken:  # a.jpg beside a.png
            png = file_name = f'{file_name}.png'
        self._taken.add(png)
        ids, segments = describe_panoptic(found.panoptic, len(self._class_names))
        write_panoptic_png(self.folder / png, ids)
        self.annotations.append(dict(image_id=image_id, file_name=png, segments_info=segments))

    def write(self) -> None:
        """Write the JSON atomically."""
        categories = [
            dict(id=label + 1, name=name, isthing=int(label < self._num_things))
            for label, name in enumerate(self._class_names)
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            data = dict(images=self.images, annotations=self.annotations, categories=categories)
            temporary.write_text(json.dumps(data), encoding='utf-8')


def describe_panoptic(panoptic: np.ndarray, num_classes: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The segments of a panoptic map (height, width), as :class:`Detections` has it.

    Returns:
        - segment ids (height, width), 0 where nothing is found;
        - ``segments_info``: id, category_id (label + 1), area in pixels, bbox (x, y, width, height in pixels), iscrowd.
    """
    ids, segments = np.zeros(panoptic.shape, np.int64), []
    for value in np.unique(panoptic).tolist():
        label = value % 1000
        if label >= num_classes:
            continue
        mask = panoptic == value
        segments.append(describe_segment(len(segments), label + 1, mask))
        ids[mask] = segments[-1]['id']
    return ids, segments
