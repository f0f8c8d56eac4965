"""Writing a checkpoint: atomically, and only if its weights are finite."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmcondetr.errors import NonFiniteLossError
from mmcondetr.writing import replacing


@register_backend('mmcondetr_atomic')
class AtomicBackend(LocalBackend):
    """Local files, written under a temporary name, synced and renamed."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with replacing(filepath) as temporary:
            temporary.write_bytes(obj)


def check_finite(runner: Runner, last: str | None) -> None:
    """Check the weights: a finite loss can have a non-finite gradient, whose weights must not replace good ones.

    Raises:
        NonFiniteLossError: a tensor of the model is NaN or infinite; names it and ``last``, the last checkpoint.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    broken = [
        name for name, value in model.state_dict().items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if broken:
        shown = ', '.join(broken[:5]) + (', ...' if len(broken) > 5 else '')
        raise NonFiniteLossError(
            f'{len(broken)} tensors of the model are NaN or infinite at iteration {runner.iter} ({shown}), so no '
            f'checkpoint is written; the last good one is {last}. Try a smaller learning rate or '
            'optim_wrapper.clip_grad, or training without --amp.'
        )
