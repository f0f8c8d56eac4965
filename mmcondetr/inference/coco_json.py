"""Detections as a COCO JSON with images, categories and scored annotations, which annotation tools can read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mmcondetr.datasets.segmentation import encode_mask
from mmcondetr.inference.detections import Detections
from mmcondetr.writing import replacing


class CocoWriter:
    """Collects the detections of many images.

    Args:
        class_names: of the model, by label; category ids start from 1 in this order.
    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self._class_names = class_names
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, file_name: str, found: Detections, **more: Any) -> None:
        """Add one image; ``more`` is added to its entry, such as the frame number in a video."""
        image_id = len(self.images) + 1
        width, height = found.size
        self.images.append(dict(id=image_id, file_name=file_name, width=width, height=height, **more))
        masks = [None] * len(found) if found.mask is None else found.mask
        for (x1, y1, x2, y2), score, label, mask in zip(found.xyxy.tolist(), found.confidence, found.class_id, masks):
            area = round((x2 - x1) * (y2 - y1), 2) if mask is None else int(mask.sum())
            annotation = dict(
                id=len(self.annotations) + 1,
                image_id=image_id,
                category_id=int(label) + 1,
                bbox=[round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)],
                area=area,
                iscrowd=0,
                score=round(float(score), 5),
            )
            if mask is not None:
                annotation['segmentation'] = encode_mask(mask)
            self.annotations.append(annotation)

    def write(self, path: str | os.PathLike) -> None:
        """Write the file atomically."""
        categories = [dict(id=number, name=name) for number, name in enumerate(self._class_names, start=1)]
        data = dict(images=self.images, categories=categories, annotations=self.annotations)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(data), encoding='utf-8')
