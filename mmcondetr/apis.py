"""mmdet's DetInferencer with a switch for :func:`~mmcondetr.inference.optimize_for_inference`."""

from __future__ import annotations

from typing import Any

from mmdet.apis import DetInferencer as MMDetInferencer

from mmcondetr.engine.errors import UserError
from mmcondetr.inference import PRECISIONS, optimize_for_inference


class DetInferencer(MMDetInferencer):
    """mmdet's DetInferencer, optimised for inference where that is asked for.

    Args:
        args: as mmdet's: model (config), weights, device, ...
        optimize: 'fp32', 'bf16' or 'fp16', None leaves the model as it is.
        compile: let torch.compile make kernels, too; needs ``optimize``.
        kwargs: as mmdet's.

    Raises:
        UserError: for another precision, or ``compile`` without ``optimize``.
    """

    def __init__(self, *args: Any, optimize: str | None = None, compile: bool = False, **kwargs: Any) -> None:
        if optimize not in (None, *PRECISIONS):
            raise UserError(f"DetInferencer: optimize must be one of {', '.join(PRECISIONS)} or None, got '{optimize}'")
        if compile and not optimize:
            raise UserError("DetInferencer: compile needs optimize, such as optimize='fp32'")
        super().__init__(*args, **kwargs)
        if optimize:
            optimize_for_inference(self.model, PRECISIONS[optimize], compile)
