"""Pictures of predictions during validation and testing (``--show-dir``), with boxes clipped to the image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmengine.runner import Runner

from mmcondetr.registry import HOOKS


@HOOKS.register_module()
class VisualizationHook(DetVisualizationHook):
    """mmdet's DetVisualizationHook, with the same arguments, for boxes that may extend beyond the image.

    Evaluation leaves such boxes unchanged, as the authors' does; mmdet's hook would draw them with a margin around a
    shrunken photo.
    """

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        if self.draw:
            with _names_as_they_are():
                super().after_val_iter(runner, batch_idx, data_batch, [clipped(sample) for sample in outputs])

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        if self.draw:
            with _names_as_they_are():
                super().after_test_iter(runner, batch_idx, data_batch, [clipped(sample) for sample in outputs])


def _names_as_they_are() -> AbstractContextManager:
    """Let matplotlib draw dollar signs: it takes what is between two for a formula, and fails if it is none."""
    return matplotlib.rc_context({'text.parse_math': False})


def clipped(sample: DetDataSample) -> DetDataSample:
    """A copy whose predicted boxes (N, 4), xyxy in pixels of the original image, are clipped to it."""
    if 'pred_instances' not in sample or 'bboxes' not in sample.pred_instances:
        return sample
    copy, predicted = sample.clone(), sample.pred_instances.clone()  # clone() copies one level
    height, width = sample.ori_shape
    boxes = predicted.bboxes
    predicted.bboxes = boxes.minimum(boxes.new_tensor([width, height, width, height])).clamp(min=0)
    copy.pred_instances = predicted
    return copy
