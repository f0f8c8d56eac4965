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


def check_registered(path: str, name: Any, kind: str) -> None:
    """Check that a name ``mmcondetr.X`` is a registered one; those of other packages are found when they are built.

    Args:
        path: of the name in the config.
        name: the value of ``type``.
        kind: the registry that would build it, whose names are suggested.

    Raises:
        UserError: none of our registries has it.
    """
    short = name.removeprefix(_OURS) if isinstance(name, str) else ''
    if short == name or not short or '.' in short:  # no name of ours, or a module's path, which mmengine imports
        return
    registries = {key: value for key, value in vars(our_registry).items() if isinstance(value, Registry)}
    known = {key: _names(registry) for key, registry in registries.items()}
    if not any(short in names for names in known.values()):
        raise UserError(f"{path}: '{name}' is not registered.{close_to(short, known.get(kind, ()), _OURS)}")


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
