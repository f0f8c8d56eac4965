"""Pictures of predictions during validation and testing (``--show-dir``), with boxes that end where the image does."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmengine.runner import Runner

from mmcondetr.registry import HOOKS


@HOOKS.register_module()
class VisualizationHook(DetVisualizationHook):
    """mmdet's DetVisualizationHook, with the same arguments, for boxes that may extend beyond the image.

    The evaluation leaves them as they are, as the authors' does; a picture with such a box came out with a margin, the
    photo shrunk in it.
    """

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        if self.draw:
            super().after_val_iter(runner, batch_idx, data_batch, [clipped(sample) for sample in outputs])

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        if self.draw:
            super().after_test_iter(runner, batch_idx, data_batch, [clipped(sample) for sample in outputs])


def clipped(sample: DetDataSample) -> DetDataSample:
    """A copy whose predicted boxes (N, 4), xyxy in pixels of the original image, are cut off at its sides."""
    if 'pred_instances' not in sample or 'bboxes' not in sample.pred_instances:
        return sample
    copy, predicted = sample.clone(), sample.pred_instances.clone()  # clone() copies one level
    height, width = sample.ori_shape
    boxes = predicted.bboxes
    predicted.bboxes = boxes.minimum(boxes.new_tensor([width, height, width, height])).clamp(min=0)
    copy.pred_instances = predicted
    return copy
