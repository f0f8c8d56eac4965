"""Checks of a config's masks before anything is built: that they are loaded, trained and measured where they exist."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mmcondetr.datasets.coco_panoptic import CocoPanopticDataset
from mmcondetr.engine.coco_panoptic_metric import measures_panoptic
from mmcondetr.errors import UserError


def check_trained_masks(config: Config) -> None:
    """Check what the training of a mask head needs.

    Raises:
        UserError: the training pipeline loads no masks, or the best checkpoint is chosen by boxes that do not change.
    """
    head = (config.get('model') or {}).get('mask_head')
    settings = (config.get('train_dataloader') or {}).get('dataset')
    if not head or settings is None:
        return
    if not _loads_masks(settings):
        raise UserError(
            'train_dataloader.dataset.pipeline: model.mask_head is trained on masks, which no step loads: write '
            "dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True), or for panoptic data "
            "dict(type='mmcondetr.LoadPanoptic')."
        )
    best = ((config.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    boxes = [each for each in ([best] if isinstance(best, str) else best or ()) if str(each).startswith('coco/bbox')]
    if head.get('freeze_detector') and boxes:
        raise UserError(
            f'default_hooks.checkpoint.save_best={boxes[0]!r}: boxes do not change while their detector is frozen '
            "(model.mask_head.freeze_detector), so the first checkpoint would be the best: write 'coco/segm_mAP'."
        )


def _loads_masks(settings: Any) -> bool:
    """Whether a pipeline at any depth of a data set's config loads masks, of instances or panoptic."""
    if isinstance(settings, dict):
        kind = settings.get('type')
        name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
        loads = bool(settings.get('with_mask')) or 'LoadPanoptic' in name
        return loads or any(_loads_masks(value) for value in settings.values())
    return isinstance(settings, (list, tuple)) and any(_loads_masks(step) for step in settings)


def check_measured_masks(config: Config) -> None:
    """Check that a detector of ours has the masks that are measured; it would be noticed after an epoch otherwise.

    Raises:
        UserError: mask AP of a model without masks, or panoptic quality of one that does not merge them.
    """
    model = config.get('model') or {}
    if model.get('type') != 'mmcondetr.ConditionalDETR':
        return
    head = model.get('mask_head') or {}
    for name in ('val_evaluator', 'test_evaluator'):
        given = config.get(name)
        for each in [given] if isinstance(given, dict) else given or ():
            if not isinstance(each, dict) or 'type' not in each:
                continue
            if measures_panoptic(each) and not head.get('panoptic'):
                raise UserError(
                    f'{name}: panoptic quality is measured, but the model makes no panoptic map: it needs '
                    'model.mask_head.panoptic=dict(num_classes=..., num_things=...).'
                )
            if 'segm' in (each.get('metric') or ()) and not head:
                raise UserError(
                    f"{name}.metric={each['metric']!r}: 'segm' is the AP of masks, but the model has none "
                    "(model.mask_head): write metric='bbox', or add one."
                )


def check_things(num_things: int, dataset: Any, loader: str) -> None:
    """Compare the number of things that a model merges with that of a panoptic data set.

    Raises:
        UserError: they differ: stuff would be counted as objects, or objects merged into one.
    """
    if not isinstance(dataset, CocoPanopticDataset):
        return
    things = dataset.metainfo['thing_classes']
    if len(things) != num_things:
        shown = ', '.join(things[:8]) + (', ...' if len(things) > 8 else '')
        raise UserError(
            f'model.mask_head.panoptic.num_things={num_things}, but {loader}.dataset has {len(things)} kinds of things '
            f'({shown}): set model.mask_head.panoptic.num_things={len(things)}.'
        )
