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
        keep_memory: change the process's allocator for speed, too; needs ``optimize``; see
            :func:`~mmcondetr.inference.optimize.optimize_for_inference`.
        kwargs: as mmdet's.

    Raises:
        UserError: for another precision, or ``compile`` or ``keep_memory`` without ``optimize``.
    """

    def __init__(
        self,
        model: Any = None,
        *args: Any,
        optimize: str | None = None,
        compile: bool = False,
        keep_memory: bool = False,
        **kwargs: Any,
    ) -> None:
        if optimize not in (None, *PRECISIONS):
            raise UserError(f"DetInferencer: optimize must be one of {', '.join(PRECISIONS)} or None, got '{optimize}'")
        for name, given in (('compile', compile), ('keep_memory', keep_memory)):
            if given and not optimize:
                raise UserError(f"DetInferencer: {name} needs optimize, such as optimize='fp32'")
        if isinstance(model, str):
            with suppress(UserError):  # it is mmdet's, or mmdet says that it is not
                model = find_config(model)
        super().__init__(model, *args, **kwargs)
        if optimize:
            optimize_for_inference(self.model, PRECISIONS[optimize], compile, keep_memory)
