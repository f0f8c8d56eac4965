"""COCO-format panoptic data, things and stuff, checked before training starts."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterable

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets import BaseDetDataset
from mmdet.datasets import CocoPanopticDataset as MMDetCocoPanopticDataset
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmcondetr.datasets.annotation_checks import some
from mmcondetr.datasets.annotation_file import name_file
from mmcondetr.datasets.panoptic_file import (
    VOID,
    PanopticAnnotation,
    PanopticImage,
    check_panoptic_classes,
    read_panoptic_file,
)
from mmcondetr.datasets.panoptic_png import read_panoptic_png
from mmcondetr.datasets.random_state import seeded
from mmcondetr.datasets.samplers import EpochIndex
from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS, TRANSFORMS

_DECODED = 16  # PNGs decoded and compared before training; the others are compared when loaded


def check_segment_ids(segment_ids: np.ndarray, segments: Iterable[int], png: str, field: str, image: int) -> None:
    """Compare the ids in the panoptic PNG of an image with those in its JSON.

    Raises:
        UserError: An id is in only one of them.
    """
    in_png, listed = set(np.unique(segment_ids).tolist()) - {VOID}, set(segments)
    if in_png != listed:
        raise UserError(
            f"Panoptic image '{png}' ({field}) and segments_info of image {image} in its JSON disagree. Ids in the PNG "
            f'only: {some(sorted(in_png - listed)) or "none"}. '
            f'In the JSON only: {some(sorted(listed - in_png)) or "none"}.'
        )


@DATASETS.register_module()
class CocoPanopticDataset(BaseDetDataset):
    """Things and stuff from COCO's panoptic JSON and PNGs; each segment is an instance with class, box and mask.

    ``metainfo`` has ``classes``, things first and then stuff, each in the order of the file, as mmdet has them for
    COCO (the default); segments of classes of the file that are left out are void. Which of them are things is read
    from the file and becomes ``thing_classes`` and ``stuff_classes``. With a sampler that yields :class:`EpochIndex` an
    item depends on (seed, epoch, index) only.

    Args:
        data_prefix: ``img`` and ``seg``, the folders of images and panoptic PNGs below ``data_root``.
        check_images: Check at the start that every image and PNG exists and has the size stated in the JSON.

    The other arguments are those of mmdet's BaseDetDataset.
    """

    METAINFO = MMDetCocoPanopticDataset.METAINFO

    def __init__(self, *args, check_images: bool = True, **kwargs) -> None:
        self.check_images = check_images
        super().__init__(*args, **kwargs)

    @property
    def _loaders(self) -> str:
        return f'{"val_dataloader/test_dataloader" if self.test_mode else "train_dataloader"}.dataset'

    def load_data_list(self) -> list[dict]:
        """One item per image that has an annotation.

        Raises:
            UserError: See :func:`read_panoptic_file`; the classes differ, or a file is missing or does not fit.
        """
        source = f'{self._loaders}.ann_file'
        file = read_panoptic_file(self.ann_file, source)
        check_panoptic_classes(file, self.metainfo['classes'], name_file(self.ann_file, source))
        is_thing = {category.name: bool(category.isthing) for category in file.categories}
        for field, kind in (('thing_classes', True), ('stuff_classes', False)):
            self._metainfo[field] = tuple(name for name in self.metainfo['classes'] if is_thing[name] is kind)
        labels = {name: label for label, name in enumerate(self.metainfo['classes'])}
        label_of = {category.id: labels.get(category.name) for category in file.categories}
        images = {image.id: image for image in file.images}
        items = [self._item(images[annotation.image_id], annotation, label_of) for annotation in file.annotations]
        if not items:
            raise UserError(f'{name_file(self.ann_file, source)} lists no images with annotations.')
        if len(images) > len(items):
            warnings.warn(
                f'{name_file(self.ann_file, source)}: {len(images) - len(items)} images have no panoptic annotation '
                'and are left out.',
                stacklevel=2,
            )
        if self.check_images and self.backend_args is None:
            self._check_files(items)
        return items

    def _item(self, image: PanopticImage, annotation: PanopticAnnotation, label_of: dict[int, int | None]) -> dict:
        return dict(
            img_id=image.id,
            img_path=os.path.join(self.data_prefix['img'], image.file_name),
            seg_map_path=os.path.join(self.data_prefix['seg'], annotation.file_name),
            height=image.height,
            width=image.width,
            ann_file=self.ann_file,
            seg_field=f"{self._loaders}.data_prefix['seg']",
            segment_ids=[segment.id for segment in annotation.segments_info],
            instances=[
                dict(
                    segment=segment.id,
                    bbox_label=label_of[segment.category_id],
                    ignore_flag=int(bool(segment.iscrowd)),
                )
                for segment in annotation.segments_info
                if label_of[segment.category_id] is not None
            ],
        )

    def _check_files(self, items: list[dict]) -> None:
        for key, prefix in (('img_path', 'img'), ('seg_map_path', 'seg')):
            absent = [item[key] for item in items if not os.path.isfile(item[key])]
            if absent:
                raise UserError(
                    f"{len(absent)} of {len(items)} files of '{self.ann_file}' do not exist: {some(absent)}. They are "
                    f"looked for in {self._loaders}.data_prefix['{prefix}'], below data_root='{self.data_root}'."
                )
        for item in items:
            with open(item['seg_map_path'], 'rb') as file:
                head = file.read(24)  # signature, length and name of the first chunk, width, height
            size = struct.unpack('>II', head[16:24]) if head[:8] == b'\x89PNG\r\n\x1a\n' and len(head) == 24 else None
            if size is not None and size != (item['width'], item['height']):
                raise _size_error(item, size)
        for item in items[:_DECODED]:
            load_segments(item)

    def __getitem__(self, idx: int) -> dict:
        if isinstance(idx, EpochIndex):
            with seeded(idx.seed, idx.epoch, idx.drawn):
                return super().__getitem__(int(idx))
        return super().__getitem__(idx)


def _size_error(item: dict, size: tuple[int, int]) -> UserError:
    return UserError(
        f"Panoptic image '{item['seg_map_path']}' ({item['seg_field']}) is {size[0]}x{size[1]} pixels, but "
        f"'{item['ann_file']}' says {item['width']}x{item['height']} (width x height) for image {item['img_id']}."
    )


def load_segments(item: dict, backend_args: dict | None = None) -> np.ndarray:
    """Segment ids (height, width) of an item of :class:`CocoPanopticDataset`, compared with its JSON.

    Raises:
        UserError: The PNG cannot be read, or its size or ids differ from the JSON's.
    """
    segment_ids = read_panoptic_png(item['seg_map_path'], item['seg_field'], backend_args)
    if segment_ids.shape != (item['height'], item['width']):
        raise _size_error(item, segment_ids.shape[::-1])
    check_segment_ids(segment_ids, item['segment_ids'], item['seg_map_path'], item['seg_field'], item['img_id'])
    return segment_ids


@TRANSFORMS.register_module()
class LoadPanoptic(BaseTransform):
    """Reads the panoptic PNG of :class:`CocoPanopticDataset`: classes, boxes and masks of all segments.

    Boxes enclose the masks tightly, as in DETR's code (xyxy in pixels, the far edges one past the last pixel).

    Args:
        backend_args: for mmengine's file reading.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Adds ``gt_bboxes``, ``gt_bboxes_labels``, ``gt_ignore_flags`` and ``gt_masks``.

        Raises:
            UserError: See :func:`load_segments`.
        """
        segment_ids = load_segments(results, self.backend_args)
        instances = results['instances']
        masks = np.zeros((len(instances), *segment_ids.shape), np.uint8)
        boxes = np.zeros((len(instances), 4), np.float32)
        for index, instance in enumerate(instances):
            masks[index] = segment_ids == instance['segment']
            rows, columns = np.flatnonzero(masks[index].any(1)), np.flatnonzero(masks[index].any(0))
            boxes[index] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        results['gt_masks'] = BitmapMasks(masks, *segment_ids.shape)
        results['gt_bboxes'] = HorizontalBoxes(torch.from_numpy(boxes))
        results['gt_bboxes_labels'] = np.array([instance['bbox_label'] for instance in instances], np.int64)
        results['gt_ignore_flags'] = np.array([instance['ignore_flag'] for instance in instances], bool)
        return results
