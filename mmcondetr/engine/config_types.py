"""What a ``type`` in a config names: a class, its arguments, or nothing."""

from __future__ import annotations

import inspect
from typing import Any

from mmdet import registry as mmdet_registry
from mmengine.registry import Registry

from mmcondetr import registry as our_registry
from mmcondetr.engine.config_options import close_to
from mmcondetr.errors import UserError

_OURS = f'{our_registry.SCOPE}.'
_BELOW_US = ('mmdet', 'mmcv', 'mmengine')


def check_registered(path: str, name: Any, kind: str, surely_built: bool = False) -> None:
    """Check that a ``type`` names something registered; those of other packages are found when they are built.

    Args:
        path: of the name in the config.
        name: the value of ``type``.
        kind: the registry that would build it, whose names are suggested.
        surely_built: whether that registry builds it, so that a name of mmdet or mmengine must be in it. Elsewhere only
            names of ours are refused, with their scope or without.

    Raises:
        UserError: no registry has it.
    """
    scope, _, short = name.rpartition('.') if isinstance(name, str) else ('', '', '')
    if not short or scope not in ('', our_registry.SCOPE, *_BELOW_US):  # a class, a module's path, another package's
        return
    ours = {key: _names(value) for key, value in vars(our_registry).items() if isinstance(value, Registry)}
    if scope == our_registry.SCOPE:
        if not any(short in names for names in ours.values()):
            raise UserError(f"{path}: '{name}' is not registered.{close_to(short, ours.get(kind, ()), _OURS)}")
        return
    of_ours = not scope and any(short in names for names in ours.values())
    if (surely_built or of_ours) and not _has_any_registry(short):
        known = {f'{scope}.{other}' if scope else other for other in _with_parents(getattr(mmdet_registry, kind))}
        known |= {f'{_OURS}{other}' for other in ours.get(kind, ())}
        raise UserError(f"{path}: '{name}' is not registered.{close_to(name, known)}")


def _has_any_registry(short: str) -> bool:
    """Whether mmdet, or what it is built on, has the name; of another kind, it is refused when it is built."""
    registries = (value for value in vars(mmdet_registry).values() if isinstance(value, Registry))
    return any(registry.get(short) is not None for registry in registries)


def _with_parents(registry: Registry | None) -> set[str]:
    return set() if registry is None else _names(registry) | _with_parents(registry.parent)


def _names(registry: Registry) -> set[str]:
    registry.import_from_location()
    return set(registry.module_dict)


def class_of(value: dict, kind: str) -> type | None:
    """The class that a dict's ``type`` names in the registry ``kind``; None if it names no class."""
    name = value.get('type')
    if inspect.isclass(name):
        return name
    if not isinstance(name, str):
        return None
    registry: Registry = getattr(our_registry, kind, None) or getattr(mmdet_registry, kind)
    try:
        found = registry.get(name)
    except Exception:  # a failing import is reported when it is built
        return None
    return found if inspect.isclass(found) else None


def parameters_of(cls: type) -> tuple[set[str], bool]:
    """The arguments of a class, including those of constructors that get its ``**kwargs``, and whether they are all."""
    found: set[str] = set()
    for ancestor in cls.__mro__:
        if '__init__' not in vars(ancestor):
            continue
        try:
            parameters = inspect.signature(ancestor.__init__).parameters
        except (TypeError, ValueError):
            return found, False
        rest = False
        for name, parameter in parameters.items():
            rest = rest or parameter.kind is parameter.VAR_KEYWORD
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) and name != 'self':
                found.add(name)
        if not rest:
            return found, True
    return found, False
