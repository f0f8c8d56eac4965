"""``--cfg-options``: only keys that the run reads are accepted; ``max_epochs=N`` changes a run's length."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmcondetr.errors import UserError

#: Top-level keys that are read outside the Runner's constructor.
_READ_ELSEWHERE = (
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'compile',
    'strategy',
    'tta_model',
    'tta_pipeline',
)
LENGTHS = ('max_epochs', 'max_iters')


def close_to(name: str, known: Iterable[str], prefix: str = '') -> str:
    """' Did you mean ...?', or an empty string; what comes close is written with ``prefix``."""
    found = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f' Did you mean {", ".join(prefix + each for each in found)}?' if found else ''


def runner_keys() -> set[str]:
    """The top-level keys of a config that a run reads."""
    return {*inspect.signature(Runner.__init__).parameters, *_READ_ELSEWHERE} - {'self', 'cfg'}


def apply_options(config: Config, options: dict[str, Any]) -> None:
    """Merge ``--cfg-options`` into ``config``.

    Raises:
        UserError: A key changes nothing, or its value is of another kind than the config's; the message names the
            config's path.
    """
    known = runner_keys()
    for key, value in options.items():
        top = key.split('.')[0]
        if key in LENGTHS:
            continue
        if top not in known:
            raise UserError(f'--cfg-options {key}: {_why_unknown(config, top, known)}')
        _check_place(config, key, value)
    config.merge_from_dict({key: value for key, value in options.items() if key not in LENGTHS})
    for key in LENGTHS:
        if key in options:
            change_length(config, key, options[key])


def _why_unknown(config: Config, top: str, known: set[str]) -> str:
    if top in config:
        places = [path for path in _paths_of(config, config[top]) if path.split('.')[0] in known]
        hint = f' Its value is used at {", ".join(places[:4])}: set those.' if places else ''
        return f"'{top}' is a variable in the config's file; values computed from it would not change.{hint}"
    inside = [path for name in sorted(known) for path in _paths_named(config.get(name), top, name)]
    hint = f' Did you mean {", ".join(inside[:3])}?' if inside else close_to(top, {*known & set(config), *LENGTHS})
    return f"the config has no '{top}', and nothing would read it.{hint}"


def _inside(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    """What is directly inside a dict or a list, with its path."""
    if isinstance(value, (dict, Config)):
        yield from ((f'{path}.{key}' if path else str(key), value[key]) for key in value)
    elif isinstance(value, (list, tuple)):
        yield from ((f'{path}.{index}', entry) for index, entry in enumerate(value))


def _paths_of(value: Any, sought: Any, path: str = '') -> Iterable[str]:
    """The paths of a value inside dicts and lists."""
    if path and value == sought and type(value) is type(sought):
        yield path
    else:
        for place, entry in _inside(value, path):
            yield from _paths_of(entry, sought, place)


def _paths_named(value: Any, name: str, path: str) -> Iterable[str]:
    """The paths of a key of that name inside dicts and lists."""
    for place, entry in _inside(value, path):
        if place == f'{path}.{name}':
            yield place
        yield from _paths_named(entry, name, place)


def _check_place(config: Config, key: str, value: Any) -> None:
    """Follow a key as far as the config goes; :mod:`mmcondetr.engine.check_config` checks the rest."""
    steps = key.split('.')
    here: Any = config
    for depth, step in enumerate(steps):
        path = '.'.join(steps[:depth])
        if isinstance(here, (list, tuple)):
            if not step.isdigit() or int(step) >= len(here):
                raise UserError(
                    f"--cfg-options {key}: {path} is a list of {len(here)} entries; '{step}' must be an index into it."
                )
            here = here[int(step)]
        elif isinstance(here, (dict, Config)):
            if step not in here:
                names = list(here)
                if difflib.get_close_matches(step, names, n=1, cutoff=0.8):
                    raise UserError(f"--cfg-options {key}: {path} has no '{step}'.{close_to(step, names)}")
                return
            here = here[step]
        elif here is None and depth:
            return
        else:
            raise UserError(f"--cfg-options {key}: {path} is {here!r}, which has nothing named '{step}' in it.")
    _check_kind(key, here, value)


def _check_kind(key: str, old: Any, new: Any) -> None:
    """Check that a number stays a number and a dict a dict; None may become anything, and anything None."""
    if old is None or new is None:
        return
    kinds = ((bool,), 'true or false'), ((int, float), 'a number'), ((str,), 'a text'), ((dict,), 'a dict')
    for types, name in kinds:
        if not isinstance(old, types) or (types[0] is int and isinstance(old, bool)):
            continue
        fits = isinstance(new, types) and (isinstance(new, bool) == isinstance(old, bool))
        fits = fits or (isinstance(old, bool) and new in (0, 1))
        fits = fits or (isinstance(old, str) and isinstance(new, dict)) or (name == 'a dict' and _are_entries(new))
        if not fits:
            shown = 'a dict' if isinstance(old, dict) else repr(old)
            raise UserError(f'--cfg-options {key}: must be {name} (the config has {shown}), not {new!r}.')
        return


def _are_entries(value: Any) -> bool:
    """Whether these are several of what a config may have one of, such as evaluators."""
    return isinstance(value, (list, tuple)) and all(isinstance(entry, dict) for entry in value)


def change_length(config: Config, key: str, length: Any) -> None:
    """Train for another number of epochs or iterations with the schedule stretched: 3/4 of the run stays 3/4.

    Schedules' ``begin``, ``end``, ``milestones`` and ``T_max`` are scaled if they count in the run's unit; a warm-up
    that counts iterations in a run that counts epochs keeps its length.

    Raises:
        UserError: The length is not a positive integer, or the config counts in the other unit.
    """
    loop = config.get('train_cfg') or {}
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise UserError(f'--cfg-options {key}: must be a whole number, 1 or more, not {length!r}.')
    former = loop.get(key)
    if not isinstance(former, int):
        other = next((name for name in LENGTHS if name in loop), None)
        hint = f' This config counts in {other}={loop[other]}.' if other else ''
        raise UserError(f'--cfg-options {key}: the config has no train_cfg.{key}.{hint}')
    loop[key] = length
    if isinstance(loop.get('val_interval'), int):
        loop.val_interval = min(loop.val_interval, length)
    schedules = config.get('param_scheduler') or []
    for schedule in [schedules] if isinstance(schedules, dict) else schedules:
        if schedule.get('by_epoch', True) == (key == 'max_epochs'):
            _stretch(schedule, length / former)


def _stretch(schedule: dict, factor: float) -> None:
    for name in ('begin', 'end', 'T_max'):
        if isinstance(schedule.get(name), int) and schedule[name] > 0:
            schedule[name] = max(1, round(schedule[name] * factor))
    if 'milestones' in schedule:
        schedule['milestones'] = sorted({max(1, round(value * factor)) for value in schedule['milestones']})
