"""Fits the tensors of any family into a model: the load hook of the detector.

Everything that loads a checkpoint ends in the model's load hooks: ``load_from``, ``tools/test.py``, ``mim test``,
DetInferencer, ``torch.nn.Module.load_state_dict``. So the names are changed there and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmcondetr.checkpoints import classes, query_groups
from mmcondetr.checkpoints.label_embeddings import fit_labels, split_labels
from mmcondetr.checkpoints.renaming import list_names, recognise, to_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.checkpoints.source import RECORD
from mmcondetr.errors import UserError

_COUNTER = 'num_batches_tracked'


def accept_any_checkpoint(detector: nn.Module) -> None:
    """Let the detector load every family of rules.py; called once, in its constructor."""
    detector._register_load_state_dict_pre_hook(_before_load, with_module=True)


def _before_load(
    detector: nn.Module, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict, *_: Any
) -> None:
    """PyTorch's load hook: change ``state_dict`` in place into what the detector wants.

    Raises:
        UserError: the tensors do not fit; lists the names.
    """
    given = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    known = local_metadata.get(RECORD, {})
    family = recognise(given)
    own = family is None or family.name == 'mmcondetr'
    wanted = _wanted(detector)
    if not known and own and any(name in given for name in wanted):
        # The rest of a state dict in memory is PyTorch's business.
        fitted, _ = query_groups.fit_groups(given, wanted, None)
    else:
        fitted = fit(detector, given, known)
    for name in given:
        del state_dict[prefix + name]
    state_dict.update({prefix + name: value for name, value in fitted.items()})


def _wanted(detector: nn.Module) -> dict[str, Tensor]:
    """The detector's own tensors by name; reading them must not start the hooks of a wrapper's state_dict."""
    return dict(detector.state_dict())


def fit(detector: nn.Module, given: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors under the detector's names, with the rows of its classes.

    Args:
        given: under the names of any family.
        known: what the file said about itself (:func:`~mmcondetr.checkpoints.source.with_record`), and under
            ``wanted`` the class names of the run's data set.

    Raises:
        UserError: names are left over or missing, or shapes differ.
    """
    where = known.get('where', 'the state dict')
    wanted = _wanted(detector)
    family = recognise(given)
    if family is None and not set(given) & set(wanted):
        raise UserError(
            '\n'.join(
                [
                    f'{where}: this is not a checkpoint of Conditional DETR: its names are those of none of '
                    f'{", ".join(FAMILIES)}.',
                    *list_names('It holds', given),
                ]
            )
        )
    own = family is None or family.name == 'mmcondetr' or set(given) <= set(wanted)
    tensors, ignored = (dict(given), []) if own else to_ours(given, family, where)
    ignored += [name for name in tensors if name.endswith(_COUNTER) and name not in wanted]
    tensors = {name: value for name, value in tensors.items() if name not in ignored}
    for name in wanted:
        if name.endswith(_COUNTER):
            tensors.setdefault(name, wanted[name])
    tensors = split_labels(tensors)
    tensors, grouped = query_groups.fit_groups(tensors, wanted, known.get('groups'))
    tensors, said, detector.untrained_classes = _fit_classes(tensors, wanted, known, where)
    said += grouped
    tensors, detector.untrained_masks = _leave_masks(tensors, wanted, where)
    _check(tensors, wanted, where, 'mmcondetr' if own else family.title)
    _check_dilation(detector, known, where)
    title = 'mmcondetr' if own else family.title
    dropped = [f'{len(ignored)} ignored ({ignored[0]}{", ..." if len(ignored) > 1 else ""})'] if ignored else []
    kept = f'{len(given)} tensors' + ('' if own else ' renamed')
    print_log(f'{where}: recognised as a checkpoint of {title}: {"; ".join([kept, *said, *dropped])}.', 'current')
    return tensors


def _fit_classes(
    tensors: dict[str, Tensor], wanted: Mapping[str, Tensor], known: Mapping[str, Any], where: str
) -> tuple[dict[str, Tensor], list[str], str]:
    """Give the head the model's rows; returns what was done and which rows are left as initialised, in words."""
    if not all(name in tensors and name in wanted for name in classes.HEAD):
        return tensors, [], ''
    count, rows_wanted = len(tensors[classes.HEAD[0]]), len(wanted[classes.HEAD[0]])
    given_names, wanted_names = known.get('names') or classes.default_names(count), known.get('wanted')
    if (
        given_names is not None
        and len(given_names) != count
        or any(
            tensors[name].shape[1:] != wanted[name].shape[1:] or tensors[name].shape[:1] != (count,)
            for name in classes.HEAD
        )
    ):
        return tensors, [], ''  # damaged or of another width: the check of shapes says so
    if wanted_names is not None and len(wanted_names) != rows_wanted:
        wanted_names = None
    rows = classes.choose_rows(given_names, count, wanted_names, rows_wanted)
    tensors = fit_labels(tensors, wanted, rows)
    if rows == list(range(count)):
        return tensors, [], ''
    start, notice = dict(wanted), ''
    if wanted_names is None and rows_wanted == 91 and classes.is_coco(given_names):
        start.update(classes.unused_rows(tensors, rows_wanted))
    else:
        notice = _tell_new_rows(rows, wanted_names, where)
    said = f'{count} -> {rows_wanted} classes by ' + (
        'COCO category id' if classes.is_coco(given_names) and rows_wanted in (80, 91) else 'name'
    )
    return classes.take_rows(tensors, rows, start), [said] if any(row is not None for row in rows) else [], notice


def _leave_masks(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], str]:
    """A detection checkpoint starts a model with masks: its mask head is left as initialised, and that is said."""
    masks = {name: value for name, value in wanted.items() if name.startswith('mask_head.')}
    if not masks or any(name in masks for name in tensors):
        return tensors, ''
    notice = f'{where}: the checkpoint has no mask head, which is left as initialised: train it before testing.'
    print_log(notice, 'current', logging.WARNING)
    return {**tensors, **masks}, notice


def _tell_new_rows(rows: list[int | None], names: classes.Names | None, where: str) -> str:
    """Log and return one line about the rows that the checkpoint does not fill; nothing where it fills all."""
    new = [index for index, row in enumerate(rows) if row is None]
    if not new:
        return ''
    which = 'all of their rows' if len(new) == len(rows) else f'{len(new)} of their {len(rows)} rows'
    shown = ', '.join(str(names[index] if names else index) for index in new[:80]) + (', ...' if len(new) > 80 else '')
    notice = (
        f'{where}: {" and ".join(classes.HEAD)} are left as initialised in {which} ({shown}): the checkpoint has '
        'no class of that name. Everything else is loaded; fine-tune before testing.'
    )
    print_log(notice, 'current', logging.WARNING)
    return notice


def _check(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str, title: str) -> None:
    left_over = [name for name in tensors if name not in wanted]
    missing = [name for name in wanted if name not in tensors]
    shapes = [
        f'{name}: {tuple(tensors[name].shape)} in the file, {tuple(wanted[name].shape)} in the model'
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    if not left_over and not missing and not shapes:
        return
    hint = []
    queries = 'query_embedding.weight'
    if any(line.startswith(queries) for line in shapes) and tensors[queries].dim() == 2:
        count, width = tensors[queries].shape
        hint = [f'The file is of a model with num_queries={count} and embed_dims={width}.']
    raise UserError(
        '\n'.join(
            [
                f'{where}: recognised as a checkpoint of {title}, but it does not fit this model. Use the config '
                'that it was trained with, or correct load_from.',
                *hint,
                *list_names('Left over', left_over),
                *list_names('Missing', missing),
                *list_names('Other shapes', shapes),
            ]
        )
    )


def _check_dilation(detector: nn.Module, known: Mapping[str, Any], where: str) -> None:
    """Weights do not show how they were dilated: warn where the backbone cannot be the one they were trained in."""
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
            f'{where}: the checkpoint is of a model that is {file}, this model is {model}; the names fit, the '
            f'results will not. Use a config with that backbone ({backbone}).',
            'current',
            logging.WARNING,
        )
