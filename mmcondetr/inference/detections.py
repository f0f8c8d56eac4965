"""The detections in one image, as numpy arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcondetr.datasets.read_image import read_image
from mmcondetr.errors import UserError
from mmcondetr.inference.drawing import colour_of, draw_boxes, draw_names
from mmcondetr.inference.mask_drawing import paint_masks, paint_panoptic, place_names


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections in one image, best first.

    ``xyxy``, ``confidence`` and ``class_id`` have the names and shapes of supervision's ``Detections``, so that
    ``supervision.Detections(xyxy=d.xyxy, confidence=d.confidence, class_id=d.class_id, data=d.data)`` is one.

    Attributes:
        xyxy: (n, 4) float32, x1, y1, x2, y2 in pixels of the input image; see ``clip`` of
            :meth:`Detector.predict <mmcondetr.inference.Detector.predict>`.
        confidence: (n,) float32, scores from 0 to 1.
        class_id: (n,) int64, indices into ``class_names``.
        class_names: of the model, by index.
        size: (width, height) of the image in pixels.
        image: the image: its path, or its pixels (height, width, 3) uint8, BGR.
        mask: (n, height, width) bool, if the model has masks (supervision's name); None otherwise. What was found in a
            tile has a mask inside that tile only.
        panoptic: (height, width) int, if the model merges its masks; None otherwise. Each pixel is class + 1000 *
            instance (instances of things count from 1, stuff has 0), or the number of classes where nothing was found.
            The model's own score threshold chooses its segments, and tiles do not change it.
    """

    xyxy: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray
    class_names: tuple[str, ...]
    size: tuple[int, int]
    image: str | np.ndarray = field(repr=False)
    mask: np.ndarray | None = field(default=None, repr=False)
    panoptic: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.xyxy)

    @property
    def boxes(self) -> np.ndarray:
        """Alias of ``xyxy``."""
        return self.xyxy

    @property
    def scores(self) -> np.ndarray:
        """Alias of ``confidence``."""
        return self.confidence

    @property
    def labels(self) -> np.ndarray:
        """Alias of ``class_id``."""
        return self.class_id

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [name_of(self.class_names, label) for label in self.class_id]

    @property
    def data(self) -> dict[str, np.ndarray]:
        """supervision's ``data``: the class name of each detection."""
        return {'class_name': np.array(self.names, dtype=str)}

    @property
    def path(self) -> str | None:
        """Path of the image; None if it was given as an array."""
        return self.image if isinstance(self.image, str) else None

    def keep(self, chosen: np.ndarray | Sequence[int]) -> Detections:
        """Select detections by a mask (n,) or indices."""
        mask = None if self.mask is None else self.mask[chosen]
        kept = dict(xyxy=self.xyxy[chosen], confidence=self.confidence[chosen], class_id=self.class_id[chosen])
        return replace(self, **kept, mask=mask)

    def above(self, score: float) -> Detections:
        """The detections with at least this score."""
        return self.keep(self.confidence >= score)

    def plot(self, path: str | os.PathLike | None = None, captions: bool = True) -> Image.Image:
        """The image with its detections, or its panoptic map if there is one, as a PIL image (which a notebook shows).

        Args:
            path: also write it to this file, in the format of its suffix.
            captions: draw name and score above each box, or the name in each segment.

        Raises:
            UserError: the image cannot be read again, or the picture cannot be written.
        """
        picture = self._draw_boxes(captions) if self.panoptic is None else self._draw_segments(captions)
        if path is not None:
            save_picture(picture, path)
        return picture

    def _draw_boxes(self, captions: bool) -> Image.Image:
        order = np.argsort(self.confidence, kind='stable')  # the best is drawn last, on top
        texts = [f'{self.names[i]} {self.confidence[i]:.2f}' if captions else '' for i in order]
        colours = [colour_of(int(self.class_id[i])) for i in order]
        pixels = read_image(self.image)
        if self.mask is not None:
            pixels = paint_masks(pixels, self.mask[order], colours)
        return draw_boxes(pixels, self.xyxy[order], colours, texts)

    def _draw_segments(self, captions: bool) -> Image.Image:
        colours = [colour_of(label) for label in range(len(self.class_names))]
        pixels = paint_panoptic(read_image(self.image), self.panoptic, colours)
        places, labels = place_names(self.panoptic, len(self.class_names)) if captions else ([], [])
        names = [name_of(self.class_names, label) for label in labels]
        return draw_names(pixels, places, [colours[label] for label in labels], names)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; boxes xyxy in pixels."""
        return dict(
            boxes=[[round(float(side), 2) for side in box] for box in self.xyxy],
            scores=[round(float(score), 5) for score in self.confidence],
            labels=[int(label) for label in self.class_id],
            names=self.names,
        )


def name_of(class_names: Sequence[str], label: int) -> str:
    """The name of a class, or its index if the model has no class names."""
    return class_names[label] if label < len(class_names) else f'class {label}'


def save_picture(picture: Image.Image, path: str | os.PathLike) -> None:
    """Write a picture, creating its folder.

    Raises:
        UserError: the suffix is not a picture format, or the file cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except (ValueError, OSError) as error:
        raise UserError(f"Picture '{os.fspath(path)}' cannot be written: {error}.") from error
