"""COCO-format detection data, checked before training starts: mmdet trains on an empty set where names do not match."""

from __future__ import annotations

import json
import os
import warnings

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO

from mmcondetr.datasets.random_state import seeded
from mmcondetr.datasets.samplers import EpochIndex
from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS

_FIELDS = dict(
    images=('id', 'file_name', 'width', 'height'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'),
    categories=('id', 'name'),
)
_SHOWN = 5  # examples named in a message


def _some(values: list) -> str:
    return ', '.join(str(value) for value in values[:_SHOWN]) + (', ...' if len(values) > _SHOWN else '')


def read_coco_json(path: str, field: str) -> dict:
    """Read and check the structure of a COCO annotation file.

    Args:
        field: Where the config names the file, for messages.

    Raises:
        UserError: The file is missing, not JSON (truncated), or lacks a field.
    """
    if not os.path.isfile(path):
        raise UserError(f"Annotation file '{path}' does not exist. It comes from {field} in the config.")
    try:
        with open(path, encoding='utf-8') as file:
            data = json.load(file)
    except (ValueError, RecursionError) as error:
        raise UserError(f"Annotation file '{path}' ({field}) is not valid JSON, perhaps truncated: {error}.") from error
    if not isinstance(data, dict) or not set(_FIELDS) <= set(data):
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise UserError(
            f"Annotation file '{path}' ({field}) is not in COCO format: it must be an object with "
            f'the lists {", ".join(_FIELDS)}; found {found}.'
        )
    for part, names in _FIELDS.items():
        for index, entry in enumerate(data[part]):
            absent = [name for name in names if name not in entry]
            if absent:
                raise UserError(
                    f"Annotation file '{path}' ({field}): {part}[{index}] (id {entry.get('id')}) lacks "
                    f'{", ".join(absent)}; COCO format asks for {", ".join(names)}.'
                )
        ids = [entry['id'] for entry in data[part]]
        if len(set(ids)) != len(ids):
            repeated = sorted({value for value in ids if ids.count(value) > 1}) if len(ids) < 1000 else ['several']
            raise UserError(
                f"Annotation file '{path}' ({field}): ids in {part} repeat: {_some(repeated)}. Each must be there once."
            )
    return data


def check_categories(path: str, field: str, in_file: list[str], classes: tuple[str, ...]) -> None:
    """Compare the category names of a file with the config's ``metainfo['classes']``.

    Raises:
        UserError: A class is not in the file, or the file has them in another order (mmdet numbers labels in the order
            of the file, so that names and labels would disagree).
    """
    line = f'metainfo=dict(classes={tuple(in_file)!r})'
    missing = [name for name in classes if name not in in_file]
    extra = [name for name in in_file if name not in classes]
    if missing:
        raise UserError(
            f"The classes of the config are not those of '{path}' ({field}). Not in the file: "
            f'{_some(missing)}. In the file only: {_some(extra) or "none"}. The data set needs {line}, and '
            f'model.bbox_head.num_classes={len(in_file)}.'
        )
    kept = tuple(name for name in in_file if name in classes)
    if kept != tuple(classes):
        raise UserError(
            f"metainfo['classes'] has the classes of '{path}' ({field}) in another order, so labels and "
            f'names would disagree. Write metainfo=dict(classes={kept!r}).'
        )
    if extra:
        warnings.warn(
            f"'{path}' ({field}): annotations of categories that are not in metainfo['classes'] are left "
            f'out: {_some(extra)}.',
            stacklevel=2,
        )


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """mmdet's CocoDataset with checks, boxes as the authors prepare them, and augmentation that can be resumed.

    Boxes are clipped to the image and those without area left out, with one warning; mmdet also drops boxes less than
    a pixel wide or high and keeps what sticks out. With a sampler that yields :class:`EpochIndex` (EpochSampler), an
    item depends on (seed, epoch, index) only, whatever the number of workers.

    Args:
        check_images: Look at the start whether every image file exists (local files only).

    The other arguments are those of mmdet's CocoDataset; ``metainfo=dict(classes=(...))`` names the classes.
    """

    def __init__(self, *args, check_images: bool = True, **kwargs) -> None:
        self.check_images = check_images
        self._left_out: list[int] = []
        super().__init__(*args, **kwargs)

    @property
    def _field(self) -> str:
        loaders = 'val_dataloader/test_dataloader' if self.test_mode else 'train_dataloader'
        return f'{loaders}.dataset.ann_file'

    def COCOAPI(self, path: str) -> COCO:  # mmdet calls self.COCOAPI(path)
        """Read and check the annotations, once, where mmdet would only build pycocotools' index."""
        data = read_coco_json(path, self._field)
        classes = self.metainfo['classes']
        names = [category['name'] for category in data['categories']]
        if isinstance(classes, str):
            raise UserError(
                f"metainfo['classes'] must be a tuple of names, not the string {classes!r}: write "
                f'metainfo=dict(classes=({classes!r},)).'
            )
        if not data['images']:
            raise UserError(f"Annotation file '{path}' ({self._field}) lists no images.")
        check_categories(path, self._field, names, tuple(classes))
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
        coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
        return coco

    def load_data_list(self) -> list[dict]:
        """As mmdet's, then one warning about what was left out, and a look for missing image files."""
        data_list = super().load_data_list()
        if self._left_out:
            warnings.warn(
                f"'{self.ann_file}' ({self._field}): {len(self._left_out)} boxes lie outside their image or "
                f'have no area and are left out (annotation ids {_some(self._left_out)}).',
                stacklevel=2,
            )
        if self.check_images:
            self._check_image_files(data_list)
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """As mmdet's, with boxes (x1, y1, x2, y2 in pixels) clipped to the image as the authors' loader does."""
        data_info = super().parse_data_info(dict(raw_data_info, raw_ann_info=[]))
        data_info['ann_file'] = self.ann_file
        for annotation in raw_data_info['raw_ann_info']:
            if annotation.get('ignore', False) or annotation['category_id'] not in self.cat_ids:
                continue
            x, y, width, height = annotation['bbox']
            box = [max(x, 0), max(y, 0), min(x + width, data_info['width']), min(y + height, data_info['height'])]
            if not (box[2] > box[0] and box[3] > box[1]):  # written so that NaN is left out, too
                self._left_out.append(annotation['id'])
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
        if self.backend_args is not None or any('://' in path for path in paths[:1]):
            return
        absent = [path for path in paths if not os.path.isfile(path)]
        if absent:
            raise UserError(
                f"{len(absent)} of {len(paths)} image files of '{self.ann_file}' do not exist: "
                f"{_some(absent)}. They are looked for under data_root='{self.data_root}' joined with "
                f"data_prefix['img']."
            )

    def __getitem__(self, idx: int) -> dict:
        if isinstance(idx, EpochIndex):
            with seeded(idx.seed, idx.epoch, idx.drawn):
                return super().__getitem__(int(idx))
        return super().__getitem__(idx)
