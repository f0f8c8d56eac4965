"""Passes the class names of the run's data set to the checkpoint being loaded."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from mmcondetr.checkpoints.source import RECORD
from mmcondetr.registry import HOOKS


@HOOKS.register_module()
class MatchClassesHook(Hook):
    """Lets classes with the same name in the checkpoint keep their rows of the head.

    The model knows the number of its classes but not their names. Without this hook a head of the same size is copied
    row by row, and one of another size is left as initialised.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Runs between reading the file and loading it into the model."""
        known = getattr(checkpoint.get('state_dict'), '_metadata', {}).get('', {}).get(RECORD)
        for kind in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{kind}_loop', None)
            if known is None or not isinstance(loop, BaseLoop):  # an unused loop is still a config
                continue
            names = getattr(loop.dataloader.dataset, 'metainfo', {}).get('classes')
            if names:
                known['dataset_classes'] = tuple(names)
                return
