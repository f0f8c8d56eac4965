"""COCO-format detection data, checked before training: mmdet trains on an empty set if class names do not match."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmengine.fileio import get_local_path

from mmcondetr.datasets.annotation_checks import some
from mmcondetr.datasets.annotation_file import name_file
from mmcondetr.datasets.annotations import read_checked
from mmcondetr.datasets.random_state import seeded
from mmcondetr.datasets.samplers import EpochIndex
from mmcondetr.datasets.segmentation import check_segmentations
from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS


def _asks_for_masks(steps: Any) -> bool:
    """Whether a step of a pipeline, at any depth, has ``with_mask``."""
    if isinstance(steps, dict):
        return bool(steps.get('with_mask')) or any(_asks_for_masks(value) for value in steps.values())
    if isinstance(steps, (list, tuple)):
        return any(_asks_for_masks(step) for step in steps)
    return bool(getattr(steps, 'with_mask', False))


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """mmdet's CocoDataset with checks, boxes prepared as by the authors, and augmentation that can be resumed.

    Boxes are clipped to the image and those without area left out, with one warning; mmdet also drops boxes less than
    a pixel wide or high and does not clip. Segmentations are read and checked if a step of the pipeline has
    ``with_mask``. With a sampler that yields :class:`EpochIndex` (EpochSampler), an item depends on (seed, epoch,
    index) only, whatever the number of workers.

    Args:
        check_images: Check at the start that every image file exists (local files only).

    The other arguments are those of mmdet's CocoDataset; ``metainfo=dict(classes=(...))`` names the classes.
    """

    def __init__(self, *args, check_images: bool = True, pipeline: Sequence = (), **kwargs) -> None:
        self.check_images = check_images
        self.with_masks = _asks_for_masks(pipeline)
        super().__init__(*args, pipeline=pipeline, **kwargs)

    @property
    def _field(self) -> str:
        loaders = 'val_dataloader/test_dataloader' if self.test_mode else 'train_dataloader'
        return f'{loaders}.dataset.ann_file'

    @property
    def _local(self) -> bool:
        """Whether the images are files of this machine."""
        return self.backend_args is None and '://' not in self.data_prefix.get('img', '')

    def load_data_list(self) -> list[dict]:
        """One dict per image, as in mmdet; checks the annotations and that the image files exist."""
        classes = self.metainfo['classes']
        if isinstance(classes, str):
            raise UserError(
                f"metainfo['classes'] must be a tuple of names, not the string {classes!r}: write "
                f'metainfo=dict(classes=({classes!r},)).'
            )
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            folder = self.data_prefix.get('img', '') if self._local else None
            file = read_checked(path, self._field, tuple(classes), not self.test_mode, folder)
        if self.with_masks:
            check_segmentations(file, name_file(self.ann_file, self._field))
        names = set(classes)
        self.cat_ids = [category.id for category in file.categories if category.name in names]
        self.cat2label = {number: label for label, number in enumerate(self.cat_ids)}
        self.cat_img_map: dict[Any, list] = {number: [] for number in self.cat_ids}
        of_image: dict[Any, list[dict]] = {image.id: [] for image in file.images}
        for annotation in file.annotations:
            if annotation.category_id in self.cat2label:
                self.cat_img_map[annotation.category_id].append(annotation.image_id)
                of_image[annotation.image_id].append(annotation.as_dict(self.with_masks))
        data_list = []
        for image in file.images:
            size = dict(width=int(image.width), height=int(image.height))
            raw = dict(id=image.id, img_id=image.id, file_name=image.file_name, **size)
            data_list.append(self.parse_data_info(dict(raw_img_info=raw, raw_ann_info=of_image.pop(image.id))))
        if self.check_images:
            self._check_image_files(data_list)
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Like mmdet's, with boxes (x1, y1, x2, y2 in pixels) clipped to the image as in the authors' loader."""
        data_info = super().parse_data_info(dict(raw_data_info, raw_ann_info=[]))
        data_info['ann_file'] = self.ann_file
        for annotation in raw_data_info['raw_ann_info']:
            if annotation.get('ignore', False) or annotation['category_id'] not in self.cat2label:
                continue
            x, y, width, height = annotation['bbox']
            box = [max(x, 0), max(y, 0), min(x + width, data_info['width']), min(y + height, data_info['height'])]
            if not (box[2] > box[0] and box[3] > box[1]):  # written so that NaN is left out, too
                continue
            instance = dict(
                bbox=box,
                bbox_label=self.cat2label[annotation['category_id']],
                ignore_flag=int(bool(annotation['iscrowd'])),
            )
            if annotation.get('segmentation'):
                instance['mask'] = annotation['segmentation']
            data_info['instances'].append(instance)
        return data_info

    def _check_image_files(self, data_list: list[dict]) -> None:
        paths = [info['img_path'] for info in data_list]
        if not self._local or any('://' in path for path in paths[:1]):
            return
        absent = [path for path in paths if not os.path.isfile(path)]
        if absent:
            raise UserError(
                f"{len(absent)} of {len(paths)} image files of '{self.ann_file}' do not exist: "
                f"{some(absent)}. They are looked for under data_root='{self.data_root}' joined with "
                f"data_prefix['img']."
            )

    def __getitem__(self, idx: int) -> dict:
        if isinstance(idx, EpochIndex):
            with seeded(idx.seed, idx.epoch, idx.drawn):
                return super().__getitem__(int(idx))
        return super().__getitem__(idx)
