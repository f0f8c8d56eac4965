"""The hook behind ``tools/test.py --optimize``."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmcondetr.errors import UserError
from mmcondetr.inference.optimize import PRECISIONS, optimize_for_inference
from mmcondetr.registry import HOOKS


@HOOKS.register_module()
class OptimizeForInferenceHook(Hook):
    """Optimises the model for inference when testing starts, after its checkpoint is loaded.

    Args:
        precision: 'fp32', 'bf16' or 'fp16'.
        compile: use torch.compile.
        keep_memory: see :func:`~mmcondetr.inference.optimize.optimize_for_inference`.

    Raises:
        UserError: the precision is unknown.
    """

    def __init__(self, precision: str = 'fp32', compile: bool = False, keep_memory: bool = False) -> None:
        if precision not in PRECISIONS:
            raise UserError(
                f"OptimizeForInferenceHook: precision must be one of {', '.join(PRECISIONS)}, got '{precision}'"
            )
        self.precision, self.compile, self.keep_memory = precision, compile, keep_memory

    def before_test(self, runner: Runner) -> None:
        """Optimise the detector inside any wrappers (several processes, test-time augmentation)."""
        model = runner.model
        while hasattr(model, 'module'):
            model = model.module
        optimize_for_inference(model, PRECISIONS[self.precision], self.compile, self.keep_memory)
        runner.logger.info(
            f'model optimised for inference: {self.precision}, {"compiled" if self.compile else "not compiled"}'
        )
