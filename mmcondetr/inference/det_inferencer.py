"""mmdet's DetInferencer with a switch for :func:`~mmcondetr.inference.optimize.optimize_for_inference`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mmdet.apis import DetInferencer as MMDetInferencer

from mmcondetr.engine.config import find_config
from mmcondetr.errors import UserError
from mmcondetr.inference.optimize import PRECISIONS, optimize_for_inference


class DetInferencer(MMDetInferencer):
    """mmdet's DetInferencer, optimised for inference where that is asked for.

    Args:
        model: as mmdet's: a config, its path, or its name, for which the names of our configs are known, too.
        args: as mmdet's: weights, device, ...
        optimize: 'fp32', 'bf16' or 'fp16', None leaves the model as it is.
        compile: let torch.compile make kernels, too; needs ``optimize``.
        kwargs: as mmdet's.

    Raises:
        UserError: for another precision, or ``compile`` without ``optimize``.
    """

    def __init__(
        self, model: Any = None, *args: Any, optimize: str | None = None, compile: bool = False, **kwargs: Any
    ) -> None:
        if optimize not in (None, *PRECISIONS):
            raise UserError(f"DetInferencer: optimize must be one of {', '.join(PRECISIONS)} or None, got '{optimize}'")
        if compile and not optimize:
            raise UserError("DetInferencer: compile needs optimize, such as optimize='fp32'")
        if isinstance(model, str):
            with suppress(UserError):  # it is mmdet's, or mmdet says that it is not
                model = find_config(model)
        super().__init__(model, *args, **kwargs)
        if optimize:
            optimize_for_inference(self.model, PRECISIONS[optimize], compile)
