"""COCO's measures over the images that were tested."""

from __future__ import annotations

import os

from mmdet.evaluation import CocoMetric as MMDetCocoMetric

from mmcondetr.errors import UserError
from mmcondetr.registry import METRICS


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's CocoMetric, with the same arguments, over the images that were tested.

    mmdet counts every object of the annotation file, also those of images that the data set leaves out (``indices``),
    as missed.

    Raises:
        UserError: ``ann_file`` is not there, or was not given.
    """

    def __init__(self, ann_file: str | None = None, *args, backend_args: dict | None = None, **kwargs) -> None:
        if not ann_file:
            raise UserError('val_evaluator/test_evaluator.ann_file is not set: name an annotation file.')
        if backend_args is None and '://' not in ann_file and not os.path.isfile(ann_file):
            raise UserError(
                f"Annotation file '{ann_file}' does not exist. It comes from "
                'val_evaluator/test_evaluator.ann_file in the config, which must name the same file as '
                'val_dataloader/test_dataloader.dataset.ann_file, with data_root in front.'
            )
        super().__init__(ann_file, *args, backend_args=backend_args, **kwargs)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """COCO's measures, 0 to 1, of what was tested since the last call."""
        in_file = set(self._coco_api.get_img_ids())
        tested = sorted({prediction['img_id'] for _, prediction in results})
        unknown = [image for image in tested if image not in in_file]
        if unknown:
            raise UserError(
                f'val_evaluator/test_evaluator.ann_file does not list the tested image {unknown[0]} '
                f'({len(unknown)} of {len(tested)} are missing): it must be the file of the data set.'
            )
        self.img_ids = tested
        return super().compute_metrics(results)
