"""Panoptic quality over the images that were tested, from COCO's panoptic JSON and PNGs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence

import numpy as np
from mmdet.evaluation import CocoPanopticMetric as MMDetCocoPanopticMetric
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from mmcondetr.datasets.annotation_checks import some
from mmcondetr.datasets.coco_panoptic import check_segment_ids
from mmcondetr.datasets.panoptic_file import read_panoptic_file
from mmcondetr.datasets.panoptic_png import read_panoptic_png
from mmcondetr.engine.panoptic_quality import TrueSegment, count_segments, per_class, summarise
from mmcondetr.errors import UserError
from mmcondetr.registry import METRICS

INSTANCE_OFFSET = 1000  # mmdet's encoding: a pixel of ``pred_panoptic_seg`` is class + 1000 * instance
_EVALUATOR = 'val_evaluator/test_evaluator'


@METRICS.register_module()
class CocoPanopticMetric(BaseMetric):
    """PQ, SQ and RQ, 0 to 100, for all classes, things (``_th``) and stuff (``_st``), as mmdet's metric names them.

    It does not need panopticapi. Samples have ``pred_panoptic_seg``, whose ``sem_seg`` (1, height, width) is class +
    1000 * instance, or the number of classes where nothing is predicted. Unlike panopticapi it evaluates the tested
    images only, not all that the file lists. Segments of classes that the data set leaves out are void, as in training:
    predictions of which more than half lies there do not count as wrong.

    Args:
        ann_file: COCO's panoptic JSON.
        seg_prefix: the folder of its PNGs.
        classwise: also print a table of all classes.
        collect_device: of results from several processes.
        prefix: of the metrics' names.
        backend_args: for mmengine's reading of the PNGs.

    Raises:
        UserError: a file is missing or malformed, it lacks a class of the data set (raised before training, when the
            validation loop is built), or a prediction does not fit.
    """

    default_prefix = 'coco_panoptic'

    def __init__(
        self,
        ann_file: str,
        seg_prefix: str,
        classwise: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file, self.seg_prefix = ann_file, seg_prefix
        self.classwise, self.backend_args = classwise, backend_args
        file = read_panoptic_file(ann_file, f'{_EVALUATOR}.ann_file')
        if backend_args is None and not os.path.isdir(seg_prefix):
            raise UserError(f"Folder '{seg_prefix}' does not exist. It comes from {_EVALUATOR}.seg_prefix.")
        self.categories = file.categories
        self.annotations = {annotation.image_id: annotation for annotation in file.annotations}
        self._labels: dict[int, int] = {}  # class index by category id, without classes that the data set leaves out

    @property
    def classes(self) -> tuple[str, ...]:
        """The data set's classes."""
        return tuple(self.dataset_meta['classes'])

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        """Set by the loop, with the data set's metainfo; compares the classes."""
        self._dataset_meta = meta
        names = [category.name for category in self.categories]
        missing = [name for name in self.classes if name not in names]
        if missing:
            raise UserError(
                f"{_EVALUATOR}.ann_file '{self.ann_file}' lacks classes of the data set, {some(missing)}: "
                "it must be the data set's file."
            )
        self._labels = {
            category.id: self.classes.index(category.name)
            for category in self.categories
            if category.name in self.classes
        }

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the segments of each image of a batch."""
        for sample in data_samples:
            predicted = sample['pred_panoptic_seg']['sem_seg']
            predicted = predicted.squeeze(0).cpu().numpy() if hasattr(predicted, 'cpu') else predicted.squeeze(0)
            self.results.append((sample['img_id'], self.count(sample['img_id'], predicted)))

    def count(self, image: int, predicted: np.ndarray) -> np.ndarray:
        """The result of :func:`count_segments` for an image and its prediction (height, width)."""
        annotation = self.annotations.get(image)
        if annotation is None:
            raise UserError(f"{_EVALUATOR}.ann_file '{self.ann_file}' does not list the tested image {image}.")
        path, field = os.path.join(self.seg_prefix, annotation.file_name), f'{_EVALUATOR}.seg_prefix'
        true_ids = read_panoptic_png(path, field, self.backend_args)
        check_segment_ids(true_ids, [segment.id for segment in annotation.segments_info], path, field, image)
        if predicted.shape != true_ids.shape:
            raise UserError(
                f"The prediction of image {image} is {predicted.shape} (height, width), its panoptic image '{path}' "
                f'{true_ids.shape}: predictions must have the size of the original image.'
            )
        true_segments = {
            segment.id: TrueSegment(self._labels[segment.category_id], bool(segment.iscrowd))
            for segment in annotation.segments_info
            if segment.category_id in self._labels
        }
        values = [value for value in np.unique(predicted).tolist() if value % INSTANCE_OFFSET < len(self.classes)]
        labels = {value + 1: value % INSTANCE_OFFSET for value in values}  # 0 means void, but is also a class
        return count_segments(true_ids, true_segments, predicted + 1, labels, len(self.classes))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The metrics over the tested images, each counted once."""
        counts = sum(dict(results).values())
        is_thing = np.zeros(len(self.classes), bool)
        for category in self.categories:
            if category.id in self._labels:
                is_thing[self._labels[category.id]] = bool(category.isthing)
        measures = summarise(counts, is_thing)
        print_log(self._table(counts, is_thing, measures), 'current')
        return measures

    def _table(self, counts: np.ndarray, is_thing: np.ndarray, measures: dict[str, float]) -> str:
        lines = [f'{"":16}{"PQ":>7}{"SQ":>7}{"RQ":>7}{"classes":>9}']
        qualities, seen = per_class(counts)
        for title, suffix, chosen in (
            ('all', '', seen),
            ('things', '_th', seen & is_thing),
            ('stuff', '_st', seen & ~is_thing),
        ):
            numbers = ''.join(f'{measures[name + suffix]:7.1f}' for name in ('PQ', 'SQ', 'RQ'))
            lines.append(f'{title:16}{numbers}{chosen.sum():9}')
        if self.classwise:
            rows = zip(self.classes, qualities, seen)
            lines += [
                f'{name:16}' + ''.join(f'{100 * value:7.1f}' for value in row) for name, row, is_seen in rows if is_seen
            ]
        return 'Panoptic quality\n' + '\n'.join(lines)


def measures_panoptic(evaluators: dict | Sequence[dict] | None) -> bool:
    """Whether one of a config's evaluators, ours or mmdet's, needs panoptic maps."""
    given = [evaluators] if isinstance(evaluators, dict) else evaluators or ()
    with DefaultScope.overwrite_default_scope('mmdet'):
        classes = [METRICS.get(each['type']) if isinstance(each['type'], str) else each['type'] for each in given]
    panoptic = (CocoPanopticMetric, MMDetCocoPanopticMetric)
    return any(inspect.isclass(each) and issubclass(each, panoptic) for each in classes)
