"""Runs an exported file on any number of images of any size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcondetr.errors import UserError
from mmcondetr.runtime.images import Image, read_image, resize_image, stack_images
from mmcondetr.runtime.masks import Sizes, finish_masks
from mmcondetr.runtime.sessions import open_session


@dataclass(frozen=True)
class Detections:
    """The detections in one image, best first.

    Attributes:
        boxes: (K, 4) float32, xyxy in pixels of the image.
        scores: (K, ) float32, in 0 ... 1.
        labels: (K, ) int64, indices of classes.
        names: the class name of each detection.
        mask_logits: (K, h, w) float32 at a quarter of the padded batch's size; None if the file outputs no masks.
        sizes: the sizes that ``mask_logits`` are resized to.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    mask_logits: np.ndarray | None = None
    sizes: Sizes | None = None

    @property
    def masks(self) -> np.ndarray | None:
        """(K, height, width) bool, at the image's size, computed on access; None if the file outputs none."""
        return None if self.mask_logits is None else finish_masks(self.mask_logits, self.sizes)

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """The detections with at least this score."""
        count = int((self.scores >= score).sum())  # best first
        logits = None if self.mask_logits is None else self.mask_logits[:count]
        return Detections(
            self.boxes[:count], self.scores[:count], self.labels[:count], self.names[:count], logits, self.sizes
        )


class Detector:
    """Runs an exported detector.

    Args:
        path: a file written by ``mmcondetr export``, ``.onnx`` or OpenVINO's ``.xml`` with its ``.bin`` beside it.
        provider: 'cpu', 'cuda', 'tensorrt' or the name of one of ONNX Runtime's execution providers; 'openvino' for
            OpenVINO on a CPU, which is always used for ``.xml`` files.
        precision: 'fp32', or 'bf16' in OpenVINO.
        threads: CPU threads; None for the library's choice.

    Attributes:
        metadata: the file's classes, palette, resize rule and origin.

    Raises:
        UserError: the file is missing, unreadable, not an export of this package, or does not fit its metadata; the
            library or the provider is not installed.
    """

    def __init__(
        self, path: str | os.PathLike, provider: str = 'cpu', precision: str = 'fp32', threads: int | None = None
    ) -> None:
        self.path = Path(path)
        self.session = open_session(self.path, provider, precision, threads)
        self.metadata = self.session.metadata

    def __call__(self, images: Image | Sequence[Image]) -> Detections | list[Detections]:
        """Detect objects in one image, or in a batch of several.

        Args:
            images: a path or an array (height, width, 3) uint8, BGR as OpenCV reads it; or a list of these, which are
                padded into one batch.

        Returns:
            The detections of the image, or a list of them.

        Raises:
            UserError: an image cannot be read, the class names do not fit the graph, or what it finds is not finite.
        """
        if isinstance(images, (str, os.PathLike, np.ndarray)):
            return self._detect([images])[0]
        if not isinstance(images, Iterable) or isinstance(images, (bytes, bytearray)):
            raise UserError(
                f'An image is a path or an array, not {type(images).__name__}; several are a list of these.'
            )
        images = list(images)
        size = self.session.batch or len(images)
        return [found for first in range(0, len(images), max(size, 1)) for found in self._detect(images[first:][:size])]

    def _detect(self, images: Sequence[Image]) -> list[Detections]:
        originals = [read_image(image) for image in images]
        original_sizes = np.array([image.shape[:2] for image in originals], dtype=np.int64)
        resized = [resize_image(image, self.metadata.resize) for image in originals]
        batch, valid_sizes = stack_images(resized, self.metadata.pad_size_divisor)
        inputs = [batch, valid_sizes, original_sizes]
        if self.session.batch is not None:  # the last image fills the remainder of a batch of fixed size
            missing = self.session.batch - len(images)
            inputs = [np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) for x in inputs]
        results = self.session.run(*inputs)
        sizes = [
            Sizes(batch.shape[2:], tuple(map(int, valid)), image.shape[:2])
            for valid, image in zip(valid_sizes, originals)
        ]
        return [self._named(size, *result) for size, result in zip(sizes, zip(*results))]

    def _named(self, sizes: Sizes, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, *masks) -> Detections:
        classes = self.metadata.classes
        wrong = labels[(labels < 0) | (labels >= len(classes))]
        if len(wrong):
            raise UserError(
                f"Model '{self.path}' does not fit its metadata: it found class {wrong[0]}, and metadata "
                f'classes has {len(classes)} names.'
            )
        if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
            raise UserError(
                f"Model '{self.path}': a box or score that it found is not finite. Its weights are damaged, or the "
                f'precision does not suit them: export it again with --verify.'
            )
        names = tuple(classes[label] for label in labels)
        return Detections(boxes, scores, labels, names, *masks, **(dict(sizes=sizes) if masks else {}))
