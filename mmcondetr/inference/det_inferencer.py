"""mmdet's DetInferencer with an option for :func:`~mmcondetr.inference.optimize.optimize_for_inference`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mmdet.apis import DetInferencer as MMDetInferencer

from mmcondetr.engine.config import find_config
from mmcondetr.errors import UserError
from mmcondetr.inference.optimize import PRECISIONS, optimize_for_inference


class DetInferencer(MMDetInferencer):
    """mmdet's DetInferencer, optionally optimised for inference.

    Args:
        model: a config, its path or its name, as in mmdet; also the name of one of our configs.
        args: mmdet's arguments: weights, device, ...
        optimize: 'fp32', 'bf16' or 'fp16'; None leaves the model unchanged.
        compile: also use torch.compile; requires ``optimize``.
        keep_memory: also change the process's allocator for speed; requires ``optimize``; see
            :func:`~mmcondetr.inference.optimize.optimize_for_inference`.
        kwargs: mmdet's keyword arguments.

    Raises:
        UserError: ``optimize`` is unknown, or ``compile`` or ``keep_memory`` is given without it.
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
            with suppress(UserError):  # not ours; mmdet resolves or rejects it
                model = find_config(model)
        super().__init__(model, *args, **kwargs)
        if optimize:
            optimize_for_inference(self.model, PRECISIONS[optimize], compile, keep_memory)
