"""Checks the number of classes, and of things among them, before training or testing."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from mmcondetr.engine.check_masks import check_things
from mmcondetr.errors import UserError
from mmcondetr.registry import HOOKS


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Compares ``model.bbox_head.num_classes`` with the classes of every data set that the run uses.

    More outputs than classes would train unnoticed, fewer would fail somewhere inside the loss. In the same way it
    compares ``model.mask_head.panoptic.num_things``.
    """

    def before_run(self, runner: Runner) -> None:
        """Runs after the loops are built and before a checkpoint is read.

        Raises:
            UserError: The numbers differ.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        outputs = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        if outputs is None:
            return
        merging = getattr(getattr(model, 'mask_head', None), 'panoptic', None)
        for kind in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{kind}_loop')
            if isinstance(loop, BaseLoop):  # otherwise this run does not use it
                classes = getattr(loop.dataloader.dataset, 'metainfo', {}).get('classes')
                if classes is not None and len(classes) != outputs:
                    shown = ', '.join(classes[:8]) + (', ...' if len(classes) > 8 else '')
                    raise UserError(
                        f'model.bbox_head.num_classes={outputs}, but {kind}_dataloader.dataset.metainfo has '
                        f'{len(classes)} classes ({shown}). '
                        f'Set model.bbox_head.num_classes={len(classes)}, or correct metainfo.'
                    )
                if merging is not None:
                    check_things(merging.num_things, loop.dataloader.dataset, f'{kind}_dataloader')
