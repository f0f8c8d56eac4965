"""The model behind ``tools/test.py --runtime``: an exported file in place of the detector."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from mmcondetr.errors import UserError
from mmcondetr.registry import MODELS
from mmcondetr.runtime import Detector


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """Evaluates :class:`mmcondetr.runtime.Detector` on the original image files.

    The output of the data set's pipeline is unused, because the exported file defines how images are resized.

    Args:
        file: the exported file.
        provider: see the runner.
        precision: see the runner.
        classes: class names of the data set, by label.

    Raises:
        UserError: the file cannot be run, or has other classes.
    """

    def __init__(self, file: str, provider: str, precision: str, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.runner = Detector(file, provider, precision)
        given = self.runner.metadata.classes
        if tuple(classes) != given:
            place = next((i for i, (a, b) in enumerate(zip(classes, given)) if a != b), min(len(classes), len(given)))
            raise UserError(
                f"Model '{file}' names {len(given)} classes and the data set {len(classes)}; they differ from "
                f'number {place} on: {given[place : place + 1]} and {tuple(classes)[place : place + 1]}.'
            )

    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        """Detect objects in the images of a batch, which are read again from their files."""
        samples = data['data_samples']
        for sample, found in zip(samples, self.runner([sample.img_path for sample in samples])):
            sample.pred_instances = InstanceData(
                bboxes=torch.from_numpy(found.boxes),
                scores=torch.from_numpy(found.scores),
                labels=torch.from_numpy(found.labels),
            )
            if found.mask_logits is not None:
                sample.pred_instances.masks = torch.from_numpy(found.masks)
        return samples

    val_step = test_step

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: an exported detector cannot be trained."""
        raise UserError('An exported detector can be tested, not trained.')
