"""The detector's load hook, which fits the tensors of any family into the model.

Every way of loading a checkpoint ends in the model's load hooks: ``load_from``, ``tools/test.py``, ``mim test``,
DetInferencer, ``torch.nn.Module.load_state_dict``. Names are therefore converted here and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmcondetr.checkpoints import classes, query_groups
from mmcondetr.checkpoints.label_embeddings import UNKNOWN, fit_labels, split_labels
from mmcondetr.checkpoints.renaming import list_names, recognise, to_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.checkpoints.source import RECORD
from mmcondetr.errors import UserError

_COUNTER = 'num_batches_tracked'


def accept_any_checkpoint(detector: nn.Module) -> None:
    """Let the detector load every family in rules.py; called once, by its constructor."""
    detector._register_load_state_dict_pre_hook(_before_load, with_module=True)


def _before_load(
    detector: nn.Module, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict, *_: Any
) -> None:
    """PyTorch's load hook: convert ``state_dict`` in place to the detector's names and shapes.

    Raises:
        UserError: the tensors do not fit; lists their names.
    """
    given = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    known = local_metadata.get(RECORD, {})
    family = recognise(given)
    own = family is None or family.name == 'mmcondetr'
    model_state = _model_state(detector)
    if not known and own and any(name in given for name in model_state):
        # PyTorch checks the rest of an in-memory state dict.
        fitted, _ = query_groups.fit_groups(given, model_state, None)
    else:
        fitted = fit(detector, given, known)
    for name in given:
        del state_dict[prefix + name]
    state_dict.update({prefix + name: value for name, value in fitted.items()})


def _model_state(detector: nn.Module) -> dict[str, Tensor]:
    """The detector's own tensors by name, read without triggering the hooks of a wrapper's state_dict."""
    return dict(detector.state_dict())


def fit(detector: nn.Module, given: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Tensor]:
    """Convert tensors to the detector's names and to its classes.

    Args:
        given: tensors under the names of any family.
        known: the file's metadata (:func:`~mmcondetr.checkpoints.source.with_record`), and as ``dataset_classes``
            the class names of the run's data set.

    Raises:
        UserError: names are unexpected or missing, or shapes differ.
    """
    where = known.get('where', 'the state dict')
    model_state = _model_state(detector)
    family = recognise(given)
    if family is None and not set(given) & set(model_state):
        raise UserError(
            '\n'.join(
                [
                    f'{where}: this is not a checkpoint of Conditional DETR: its names match none of the known '
                    f'families ({", ".join(FAMILIES)}).',
                    *list_names('It holds', given),
                ]
            )
        )
    own = family is None or family.name == 'mmcondetr' or set(given) <= set(model_state)
    tensors, ignored = (dict(given), []) if own else to_ours(given, family, where)
    ignored += [name for name in tensors if name.endswith(_COUNTER) and name not in model_state]
    tensors = {name: value for name, value in tensors.items() if name not in ignored}
    for name in model_state:
        if name.endswith(_COUNTER):
            tensors.setdefault(name, model_state[name])
    tensors = split_labels(tensors)
    tensors, grouped = query_groups.fit_groups(tensors, model_state, known.get('groups'))
    merging = getattr(getattr(detector, 'mask_head', None), 'panoptic', None)
    tensors, notes, detector.untrained_classes = _fit_classes(tensors, model_state, known, where, merging)
    notes += grouped
    detector.fitted_groups = '; '.join(grouped)
    tensors, detector.untrained_masks = _keep_mask_head(tensors, model_state, where)
    _check(tensors, model_state, where, 'mmcondetr' if own else family.title)
    _check_dilation(detector, known, where)
    title = 'mmcondetr' if own else family.title
    dropped = [f'{len(ignored)} ignored ({ignored[0]}{", ..." if len(ignored) > 1 else ""})'] if ignored else []
    kept = f'{len(given)} tensors' + ('' if own else ' renamed')
    print_log(f'{where}: recognised as a checkpoint of {title}: {"; ".join([kept, *notes, *dropped])}.', 'current')
    return tensors


def _fit_classes(
    tensors: dict[str, Tensor], model_state: Mapping[str, Tensor], known: Mapping[str, Any], where: str, merging: Any
) -> tuple[dict[str, Tensor], list[str], str]:
    """Fit the head to the model's classes; also returns log messages, and a notice of rows left as initialised.

    Args:
        merging: the model's ``mask_head.panoptic``; None if it is not panoptic.
    """
    if not all(name in tensors and name in model_state for name in classes.HEAD):
        return tensors, [], ''
    count, model_rows = len(tensors[classes.HEAD[0]]), len(model_state[classes.HEAD[0]])
    given_names, model_names = known.get('names') or classes.default_names(count), known.get('dataset_classes')
    if (
        given_names is not None
        and len(given_names) != count
        or any(
            tensors[name].shape[1:] != model_state[name].shape[1:] or tensors[name].shape[:1] != (count,)
            for name in classes.HEAD
        )
    ):
        return tensors, [], ''  # damaged or of another width: reported by the shape check
    if model_names is not None and len(model_names) == model_rows - 1 and given_names is not None:
        model_names = (*model_names, classes.BACKGROUND)  # a head with a softmax
    if model_names is not None and len(model_names) != model_rows:
        model_names = None
    rows = classes.choose_rows(given_names, count, model_names, model_rows)
    tensors = fit_labels(tensors, model_state, rows)
    if rows == list(range(count)):
        return tensors, [], ''
    start, notice = dict(model_state), ''
    if model_names is None and model_rows == 91 and classes.is_coco(given_names):
        start.update(classes.unused_rows(tensors, model_rows))
    else:
        reason = _explain_new_rows(rows, given_names, known.get('stuff', ()), model_names, merging)
        notice = _report_new_rows(rows, model_names, where, reason)
    notes = f'{count} -> {model_rows} classes by ' + (
        'COCO category id' if classes.is_coco(given_names) and model_rows in (80, 91) else 'name'
    )
    return classes.take_rows(tensors, rows, start), [notes] if any(row is not None for row in rows) else [], notice


def _keep_mask_head(
    tensors: dict[str, Tensor], model_state: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], str]:
    """Let a detection checkpoint initialise a model with masks; also returns a notice of its untrained mask head."""
    masks = {name: value for name, value in model_state.items() if name.startswith('mask_head.')}
    if not masks or any(name in masks for name in tensors):
        return tensors, ''
    notice = f'{where}: the checkpoint has no mask head, which is left as initialised: train it before testing.'
    print_log(notice, 'current', logging.WARNING)
    return {**tensors, **masks}, notice


def _explain_new_rows(
    rows: list[int | None],
    given: classes.Names | None,
    stuff: Sequence[str],
    names: classes.Names | None,
    merging: Any,
) -> str:
    """Why a checkpoint whose classes are ``given`` does not fill all rows of a model with the classes ``names``."""
    count = len([name for name in classes.used(given or ()) if name != classes.BACKGROUND])
    advice = 'test it with the config that it was trained with, or train this model from it (load_from)'
    if merging is not None and count and not stuff and None in rows[merging.num_things :]:
        kinds = merging.num_classes - merging.num_things
        return (
            f'the checkpoint is of a model of {count} classes without stuff, and this model is panoptic '
            f'({merging.num_things} kinds of things, {kinds} of stuff): {advice}'
        )
    if merging is None and stuff and names is None:
        return (
            f'the checkpoint is of a panoptic model ({count - len(stuff)} kinds of things, {len(stuff)} of stuff), and '
            f'this model has no model.mask_head.panoptic: {advice}'
        )
    return 'the checkpoint has no class of that name' if names or not count else f'the checkpoint has {count} classes'


def _report_new_rows(rows: list[int | None], names: classes.Names | None, where: str, reason: str) -> str:
    """Log and return a notice of the rows that the checkpoint does not fill; empty if it fills all."""
    new = [index for index, row in enumerate(rows) if row is None]
    if not new:
        return ''
    which = 'all of their rows' if len(new) == len(rows) else f'{len(new)} of their {len(rows)} rows'
    shown = ', '.join(str(names[index] if names else index) for index in new[:80]) + (', ...' if len(new) > 80 else '')
    notice = (
        f'{where}: {" and ".join(classes.HEAD)} are left as initialised in {which} ({shown}): {reason}. '
        'Everything else is loaded; fine-tune before testing.'
    )
    print_log(notice, 'current', logging.WARNING)
    return notice


def _check(tensors: Mapping[str, Tensor], model_state: Mapping[str, Tensor], where: str, title: str) -> None:
    left_over = [name for name in tensors if name not in model_state]
    missing = [name for name in model_state if name not in tensors]
    shapes = [
        f'{name}: {tuple(tensors[name].shape)} in the file, {tuple(model_state[name].shape)} in the model'
        for name in model_state
        if name in tensors and tensors[name].shape != model_state[name].shape
    ]
    if not left_over and not missing and not shapes:
        return
    hint = []
    queries = 'query_embedding.weight'
    if any(line.startswith(queries) for line in shapes) and tensors[queries].dim() == 2:
        count, width = tensors[queries].shape
        hint = [f'The file is from a model with num_queries={count} and embed_dims={width}.']
    if UNKNOWN in left_over:
        hint.append(
            'The file is from a DAB-DETR trained with denoising, whose queries have a content: set '
            "model.decoder.reference_point.type='mmcondetr.LabelledAnchorBoxes'."
        )
    raise UserError(
        '\n'.join(
            [
                f'{where}: recognised as a checkpoint of {title}, but it does not fit this model. Use the config '
                'it was trained with, or correct load_from.',
                *hint,
                *list_names('Left over', left_over),
                *list_names('Missing', missing),
                *list_names('Other shapes', shapes),
            ]
        )
    )


def _check_dilation(detector: nn.Module, known: Mapping[str, Any], where: str) -> None:
    """Weights do not reveal their dilation: warn if the backbone cannot be the one they were trained with."""
    stage = getattr(getattr(detector, 'backbone', None), 'layer4', None)
    first = getattr(stage[0], 'conv2', None) if isinstance(stage, nn.Sequential) and len(stage) > 1 else None
    if first is None:
        return
    dilated = tuple(stage[1].conv2.dilation) != (1, 1)
    if tuple(first.dilation) != (1, 1):
        print_log(
            f'{where}: model.backbone dilates the first block of its last stage too (mmdet.ResNet with '
            "dilations=(1, 1, 1, 2) does). Every public DC5 checkpoint was trained with torchvision's rule, in "
            "which that block is not dilated, and gives wrong results here: use type='mmcondetr.ResNetDC5'.",
            'current',
            logging.WARNING,
        )
    elif known.get('dc5') is not None and known['dc5'] != dilated:
        file, model, backbone = ('DC5', 'not DC5', 'ResNetDC5') if known['dc5'] else ('not DC5', 'DC5', 'ResNet')
        print_log(
            f'{where}: the checkpoint is from a model that is {file}, this model is {model}; the names match, but the '
            f'results will be wrong. Use a config with that backbone ({backbone}).',
            'current',
            logging.WARNING,
        )
