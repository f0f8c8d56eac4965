"""COCO metrics over the images that were tested."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.fileio import get_local_path

from mmcondetr.datasets.annotation_checks import Columns, has_part_inside, some
from mmcondetr.datasets.annotation_file import AnnotationFile, name_file
from mmcondetr.datasets.annotations import read_checked
from mmcondetr.datasets.segmentation import area_of, check_segmentations
from mmcondetr.engine.console import without_chatter
from mmcondetr.errors import UserError
from mmcondetr.registry import METRICS

_SOURCE = 'val_evaluator/test_evaluator.ann_file'


def to_pycocotools(file: AnnotationFile, source: str, with_segmentation: bool) -> COCO:
    """The ground truth as pycocotools' COCO, without boxes that no detection can match: they would count as missed.

    Annotations are renumbered from 1, because COCOeval treats a match with id 0 as none; a missing area is filled in.
    """
    columns = Columns(file)
    kept = has_part_inside(columns.boxes, columns.sizes)
    if not kept.all():
        ids = some(entry.id for entry, keep in zip(file.annotations, kept) if not keep)
        warnings.warn(
            f'{source}: {(~kept).sum()} boxes lie outside their image or have no area and do not count as missed '
            f'(annotation ids {ids}).',
            stacklevel=2,
        )
    entries = [
        dict(entry.as_dict(with_segmentation), area=area_of(entry, int(height), int(width)))
        for entry, (width, height), keep in zip(file.annotations, columns.sizes, kept)
        if keep
    ]
    coco = COCO()
    coco.dataset = dict(
        images=[
            dict(id=image.id, file_name=image.file_name, width=int(image.width), height=int(image.height))
            for image in file.images
        ],
        annotations=[dict(entry, id=number) for number, entry in enumerate(entries, 1)],
        categories=[dict(id=category.id, name=category.name) for category in file.categories],
    )
    with without_chatter():
        coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's CocoMetric, with the same arguments, over the images that were tested.

    mmdet counts as missed every object of the annotation file, including boxes without area and those of images that
    the data set leaves out (``indices``).

    Raises:
        UserError: ``ann_file`` does not exist, is not set, or would be evaluated wrongly.
    """

    def __init__(self, ann_file: str | None = None, *args, backend_args: dict | None = None, **kwargs) -> None:
        if not ann_file:
            raise UserError(f'{_SOURCE} is not set: name an annotation file.')
        if backend_args is None and '://' not in ann_file and not os.path.isfile(ann_file):
            raise UserError(
                f"Annotation file '{ann_file}' does not exist. It comes from "
                f'{_SOURCE} in the config, which must name the same file as '
                'val_dataloader/test_dataloader.dataset.ann_file, with data_root in front.'
            )
        super().__init__(None, *args, backend_args=backend_args, **kwargs)
        with get_local_path(ann_file, backend_args=backend_args) as path, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the data set has already reported them for this file
            file = read_checked(path, _SOURCE, training=False)
        if 'segm' in self.metrics:
            check_segmentations(file, name_file(ann_file, _SOURCE))
        self._coco_api = to_pycocotools(file, name_file(ann_file, _SOURCE), 'segm' in self.metrics)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collect the predictions of a batch.

        Raises:
            UserError: A box or a score is NaN or infinite; pycocotools would treat NaN as a match, and AP would look
                plausible.
        """
        for sample in data_samples:
            for field in ('bboxes', 'scores'):
                if not torch.isfinite(torch.as_tensor(sample['pred_instances'][field])).all():
                    raise UserError(
                        f"The predictions for '{sample.get('img_path', sample.get('img_id'))}' have {field} that are "
                        'NaN or infinite, so nothing is evaluated: the weights are not finite, or the precision '
                        '(--optimize fp16, --amp) is too low for them.'
                    )
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """COCO metrics, 0 to 1, of the images tested since the last call."""
        in_file = set(self._coco_api.get_img_ids())
        tested = sorted({prediction['img_id'] for _, prediction in results})
        unknown = [image for image in tested if image not in in_file]
        if unknown:
            raise UserError(
                f'{_SOURCE} does not list the tested image {unknown[0]} '
                f'({len(unknown)} of {len(tested)} are missing): it must be the file of the data set.'
            )
        self.img_ids = tested
        with without_chatter():  # the table is in the log
            return super().compute_metrics(results)
