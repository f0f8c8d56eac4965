"""The Python interface: a detector, built from a config and weights, that turns images into arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmcondetr.checkpoints.published import fetch
from mmcondetr.datasets.read_image import array_pipeline, read_image
from mmcondetr.errors import UserError
from mmcondetr.inference.detections import Detections
from mmcondetr.inference.load_detector import load_detector
from mmcondetr.inference.optimize import PRECISIONS, optimize_for_inference
from mmcondetr.inference.tiles import is_cut, merge_tiles, tile_windows

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    AnImage = str | os.PathLike | np.ndarray | PILImage

LOOK_AHEAD = 4  # batches of images that are read ahead to find some of equal shape


class Detector:
    """A trained detector.

    ::

        detector = Detector('conditional-detr_r50_8xb2-50e_coco', weights='ConditionalDETR_r50_epoch50.pth')
        detections = detector.predict('street.jpg')
        detections.boxes, detections.scores, detections.names
        detections.plot('street_detections.jpg')

    Args:
        config: path of a config, or the name of one in the package.
        weights: path or URL of a checkpoint that fits it, of any family that ``mmcondetr test`` reads; None to
            download those published for one of our configs, once.
        device: such as 'cpu' or 'cuda:0'; if None, the first GPU if there is one.
        optimize: 'fp32', 'bf16' or 'fp16' for :func:`~mmcondetr.inference.optimize_for_inference`; None leaves the
            model unchanged.
        cfg_options: settings to change in the config, such as ``{'model.test_cfg.max_per_img': 300}``.

    Raises:
        UserError: a file is missing or cannot be read, the checkpoint does not fit, or ``optimize`` is unknown.
    """

    def __init__(
        self,
        config: str | os.PathLike,
        weights: str | os.PathLike | None = None,
        device: str | None = None,
        optimize: str | None = None,
        cfg_options: dict[str, Any] | None = None,
    ) -> None:
        if optimize not in (None, *PRECISIONS):
            raise UserError(f"Detector: optimize must be one of {', '.join(PRECISIONS)} or None, got '{optimize}'.")
        device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
        if weights is None:
            weights = fetch(os.fspath(config)).path
        self.model = load_detector(os.fspath(config), os.fspath(weights), device, cfg_options)
        if hasattr(self.model, 'check_trained'):
            self.model.check_trained()
        if optimize:
            optimize_for_inference(self.model, PRECISIONS[optimize])
        self._pipeline = array_pipeline(self.model.cfg)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the model, by label."""
        return tuple(self.model.dataset_meta.get('classes', ()))

    @property
    def num_things(self) -> int | None:
        """How many classes are things, if the model makes panoptic maps; those after them are stuff."""
        panoptic = getattr(getattr(self.model, 'mask_head', None), 'panoptic', None)
        return None if panoptic is None else panoptic.num_things

    def predict(
        self,
        images: AnImage | Sequence[AnImage],
        score_threshold: float = 0.3,
        batch_size: int = 1,
        channel_order: str = 'bgr',
        clip: bool = True,
        tile: int | None = None,
        tile_overlap: float = 0.2,
    ) -> Detections | list[Detections]:
        """Find objects.

        Args:
            images: one, or a list: paths, PIL images, or arrays (height, width, 3), (height, width) or
                (height, width, 4) of uint8 or uint16.
            score_threshold: minimum score; 0 keeps all detections of the model (``test_cfg.max_per_img``).
            batch_size: maximum number of images in a batch. Only images of equal shape are batched, because padding
                changes scores slightly; results therefore do not depend on the other images.
            channel_order: of arrays: 'bgr', as in OpenCV and mmdet, or 'rgb', as in PIL and matplotlib.
            clip: clip boxes to the image. Evaluation does not, as in the authors' code.
            tile: also detect in overlapping square tiles of this size in pixels, for small objects in large images.
            tile_overlap: overlap of neighbouring tiles, as a fraction of their side.

        Returns:
            One result for a single image, a list for a list.

        Raises:
            UserError: an image cannot be read, or an argument is out of range.
        """
        single = not isinstance(images, (list, tuple))
        options = dict(score_threshold=score_threshold, batch_size=batch_size, channel_order=channel_order, clip=clip)
        found = list(self.stream([images] if single else images, tile=tile, tile_overlap=tile_overlap, **options))
        return found[0] if single else found

    def stream(
        self,
        images: Iterable[AnImage],
        score_threshold: float = 0.3,
        batch_size: int = 1,
        channel_order: str = 'bgr',
        clip: bool = True,
        tile: int | None = None,
        tile_overlap: float = 0.2,
    ) -> Iterator[Detections]:
        """Like :meth:`predict`, but yields one result at a time, for video or more images than fit into memory."""
        if batch_size < 1:
            raise UserError(f'batch_size must be at least 1, got {batch_size}.')
        if not 0 <= score_threshold <= 1:
            raise UserError(f'score_threshold must be from 0 to 1, got {score_threshold:g}.')
        ahead = 1 if batch_size == 1 else LOOK_AHEAD * batch_size
        for group in _chunks(images, ahead):
            read = [read_image(image, channel_order) for image in group]
            if tile is None:
                found = self._detect(read, batch_size)
            else:
                found = [self._detect_tiled(pixels, score_threshold, batch_size, tile, tile_overlap) for pixels in read]
            for image, pixels, (boxes, scores, labels, *maps) in zip(group, read, found):
                height, width = pixels.shape[:2]
                if clip:
                    boxes = boxes.clip(0, np.array([width, height, width, height], dtype=boxes.dtype))
                shown = os.fspath(image) if isinstance(image, (str, os.PathLike)) else pixels
                result = Detections(boxes, scores, labels, self.class_names, (width, height), shown, *maps)
                yield result.above(score_threshold)

    def _detect(self, images: Sequence[np.ndarray], batch_size: int) -> list[tuple[np.ndarray, ...]]:
        """Boxes (xyxy in pixels, not clipped), scores and labels of BGR images, batched by shape."""
        prepared = [self._pipeline(dict(img=pixels, img_id=index)) for index, pixels in enumerate(images)]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, item in enumerate(prepared):
            by_shape.setdefault(tuple(item['inputs'].shape), []).append(index)
        found: list[tuple[np.ndarray, ...]] = [()] * len(images)
        for indices in by_shape.values():
            for batch in _chunks(indices, batch_size):
                data = dict(
                    inputs=[prepared[index]['inputs'] for index in batch],
                    data_samples=[prepared[index]['data_samples'] for index in batch],
                )
                with torch.no_grad():
                    samples = self.model.test_step(data)
                for index, sample in zip(batch, samples):
                    found[index] = _to_arrays(sample)
        return found

    def _detect_tiled(
        self, pixels: np.ndarray, score_threshold: float, batch_size: int, side: int, overlap: float
    ) -> tuple[np.ndarray, ...]:
        """Like :meth:`_detect` for one image and its tiles, without detections below the threshold."""
        height, width = pixels.shape[:2]
        windows = tile_windows(width, height, side, overlap)
        if len(windows) > 1:
            windows = [(0, 0, width, height), *windows]  # objects larger than a tile
        views = self._detect([pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in windows], batch_size)
        parts = []
        for number, (window, found) in enumerate(zip(windows, views)):
            boxes = found[0] + np.array([*window[:2], *window[:2]], dtype=np.float32)
            parts.append((boxes, *found[1:3], np.full(len(boxes), number), is_cut(boxes, window, width, height)))
        boxes, scores, labels, origin, cut = (np.concatenate(values) for values in zip(*parts))
        kept = merge_tiles(boxes, scores, labels, origin, cut)
        kept = kept[scores[kept] >= score_threshold]  # before masks of the whole image's size are made of all
        found = boxes[kept], scores[kept], labels[kept]
        if len(views[0]) == len(found):
            return found
        in_tiles = [mask for view in views for mask in view[3]]
        masks = np.zeros((len(kept), height, width), bool)
        for mask, index in zip(masks, kept):
            x1, y1, x2, y2 = windows[origin[index]]
            mask[y1:y2, x1:x2] = in_tiles[index]
        return *found, masks, *views[0][4:]


def _to_arrays(sample: Any) -> tuple[np.ndarray, ...]:
    """Boxes, scores and labels, best first; then masks and the panoptic map, if the model has any."""
    instances = sample.pred_instances
    scores = instances.scores.float().cpu().numpy()
    order = np.argsort(-scores, kind='stable')
    boxes = instances.bboxes.float().cpu().numpy()[order]
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise UserError(
            'The predictions are NaN or infinite: the weights are not finite, or too large for the precision. '
            '`mmcondetr test` names the first image.'
        )
    maps = [instances.masks.cpu().numpy()[order]] if 'masks' in instances else []
    if 'pred_panoptic_seg' in sample:
        maps.append(sample.pred_panoptic_seg.sem_seg[0].cpu().numpy())
    return boxes, scores[order], instances.labels.cpu().numpy().astype(np.int64)[order], *maps


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
