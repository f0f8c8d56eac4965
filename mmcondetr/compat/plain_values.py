"""The globals that a checkpoint may reference, each replaced by a function that validates its arguments.

Unvalidated, a file could make NumPy use types whose values are addresses (flags, fields), make torch create tensors
that extend beyond their storage, and make either allocate excessive memory.
"""

from __future__ import annotations

import argparse
import pickle
from collections import Counter, OrderedDict
from math import prod
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from torch import Tensor


class Refused(pickle.UnpicklingError):
    """The file contains something that no checkpoint needs, or inconsistent values; the message names it."""


class AsksForCode(Refused):
    """The file references a global that is not in :data:`SAFE_GLOBALS`."""

    def __init__(self, name: str) -> None:
        super().__init__(f'{name[:100]} is not allowed in a checkpoint')
        self.name = name[:100]


def kind_of(value: Any) -> str:
    """A value's name in messages; its own text could be endless (lists that contain one list many times)."""
    return f'{value.__module__}.{value.__qualname__}' if hasattr(value, '__qualname__') else type(value).__name__


# Structure ------------------------------------------------------------------------------------------------------------

_PLAIN = (str, int, float, bool, bytes, type(None))
_LARGEST_KEY = 2**60
_DEEPEST = 100
_MOST_EXPANDED = 2_000_000


def check_key(key: Any) -> None:
    """Check that a dict's key or a set's member is a plain value, whose hash takes no time.

    Tuples can be nested so that hashing takes forever, and a file could choose tuples or large integers (which are
    hashed modulo 2**61 - 1) that all have one hash. Strings and bytes are hashed with a random seed.

    Raises:
        Refused: it is not.
    """
    if type(key) not in _PLAIN:
        raise Refused(f'a key of type {type(key).__name__[:40]}')
    if type(key) is int and abs(key) > _LARGEST_KEY:
        raise Refused('a key of more than 60 bits')


def _check_items(kind: type, items: Any) -> None:
    """The arguments of a dict or set; the keys of a dict were checked when it was filled."""
    if type(items) in (dict, OrderedDict, Counter, set):
        return
    if type(items) not in (list, tuple):
        raise Refused(f'a {kind.__name__} of {kind_of(items)}')
    for item in items:
        if kind is OrderedDict and (type(item) not in (list, tuple) or len(item) != 2):
            raise Refused('an OrderedDict that is not made of pairs')
        check_key(item[0] if kind is OrderedDict else item)


def _made_of_keys(kind: type) -> Any:
    """Replaces a class that hashes its arguments; creates an instance of ``kind`` itself."""

    def make(*items: Any) -> Any:
        for given in items:
            _check_items(kind, given)
        return kind(*items)

    return make


def _contained(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.values(), *vars(value).values()] if hasattr(value, '__dict__') else list(value.values())
    if isinstance(value, argparse.Namespace):
        return list(vars(value).values())
    return list(value) if type(value) in (list, tuple, set) else []


def check_structure(whole: Any) -> None:
    """Check that walking through a checkpoint (copying, moving, printing it) comes to an end.

    Raises:
        Refused: values are nested too deeply, contain themselves, or are shared so often that they are many more than
            the file has.
    """
    sizes: dict[int, int] = {}  # size of containers, counting all contents as often as they occur
    stack, inside = [(whole, iter(_contained(whole)))], {id(whole)}
    while stack:
        value, rest = stack[-1]
        for child in rest:
            if id(child) in inside and _contained(child):
                raise Refused('a value that contains itself')
            if id(child) not in sizes and _contained(child):
                stack.append((child, iter(_contained(child))))
                inside.add(id(child))
                break
        else:
            stack.pop()
            inside.discard(id(value))
            sizes[id(value)] = 1 + sum(sizes.get(id(child), 1) for child in _contained(value))
            if sizes[id(value)] > _MOST_EXPANDED:
                raise Refused(f'values that are shared so often that they are more than {_MOST_EXPANDED}')
        if len(stack) > _DEEPEST:
            raise Refused(f'values nested more than {_DEEPEST} deep')


def versions_in(metadata: Any) -> OrderedDict[str, dict[str, int]]:
    """The ``_metadata`` of a state dict, of which only each module's version is kept.

    With ``assign_to_params_buffers`` in it, PyTorch would replace the parameters that an optimizer already has, and
    train nothing.

    Raises:
        Refused: it is not a dict of dicts by the names of modules.
    """
    if not isinstance(metadata, dict) or not all(
        type(name) is str and isinstance(about, dict) for name, about in metadata.items()
    ):
        raise Refused('_metadata that is not a dict of dicts')
    return OrderedDict(
        (name, dict(version=about['version'])) for name, about in metadata.items() if type(about.get('version')) is int
    )


# NumPy ----------------------------------------------------------------------------------------------------------------

_NUMBERS = {code: np.dtype(code) for code in ('b1', 'u1', 'u2', 'u4', 'u8', 'i1', 'i2', 'i4', 'i8', 'f2', 'f4', 'f8')}


class _Dtype:
    """Replaces ``numpy.dtype`` by one of a fixed list of numeric types; NumPy's would take its flags from the file."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str):
            raise Refused(f'a NumPy array of type {kind_of(code)}')
        if code not in _NUMBERS:
            raise Refused(f'a NumPy array of type {code[:20]!r}, and not of one of {", ".join(_NUMBERS)}')
        self.numpy = _NUMBERS[code]

    def __setstate__(self, state: tuple) -> None:
        # Version, byte order, fields etc. and flags must be those of a plain number.
        if not isinstance(state, tuple) or state[1:2] not in (('<',), ('|',), ('=',)):
            raise Refused('a NumPy type of another byte order')
        if state[0] not in (3, 4) or state[2:8] != (None, None, None, -1, -1, 0) or any(state[8:]):
            raise Refused('a NumPy type that is not a plain number')


def _content(dtype: Any, data: Any, count: int) -> bytes:
    if type(dtype) is not _Dtype or type(data) is not bytes or len(data) != count * dtype.numpy.itemsize:
        raise Refused('a NumPy value whose bytes are not those of its type and shape')
    return data


class _Array(np.ndarray):
    """Replaces ``numpy.ndarray``; the number of bytes must match type and shape."""

    def __new__(cls, *_: Any) -> _Array:
        raise Refused('a NumPy array that is not made the usual way')

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        _content(dtype, data, prod(as_sizes(shape)))
        super().__setstate__((1, tuple(shape), dtype.numpy, bool(fortran), data))

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return np.array(self, subok=False).__reduce_ex__(protocol)  # saved as a plain array


def _numpy_array(kind: type, shape: tuple, code: Any) -> _Array:
    if kind is not _Array:
        raise Refused('a NumPy array of another class')
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _numpy_scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(_content(dtype, data, 1), dtype.numpy)[0]


# mmengine's log, text and the command line ----------------------------------------------------------------------------


class _History(HistoryBuffer):
    """Becomes a HistoryBuffer with the numbers in the file, but its own functions."""

    def __setstate__(self, state: dict) -> None:
        log, count = state['_log_history'], state['_count_history']
        if type(log) is not _Array or type(count) is not _Array or log.ndim != 1 or log.shape != count.shape:
            raise Refused('a history that is not made of two arrays')
        self.__class__ = HistoryBuffer
        self.__init__(np.array(log), np.array(count), int(state['max_length']))


def _history_statistic(owner: type, name: str) -> None:
    """Replaces ``getattr``, with which checkpoints reference HistoryBuffer's statistics; it has these itself."""
    if owner is not _History or name not in ('min', 'max', 'current', 'mean'):
        name = name[:40] if isinstance(name, str) else kind_of(name)
        raise Refused(f"a checkpoint may not ask for the attribute '{name}' of {kind_of(owner)}")


def _codecs_encode(text: str, encoding: str) -> bytes:
    """How pickle protocol 2 writes bytes, which needs no codec but latin1."""
    if encoding != 'latin1':
        encoding = encoding[:40] if isinstance(encoding, str) else kind_of(encoding)
        raise Refused(f"a checkpoint may not ask for the codec '{encoding}'")
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """How pickle protocol 2 writes empty bytes; with an argument, ``bytes`` could allocate any amount of memory."""
    return b''


def _safe_globals() -> dict[str, Any]:
    found: dict[str, Any] = {
        'mmengine.logging.history_buffer.HistoryBuffer': _History,
        'builtins.getattr': _history_statistic,
        'argparse.Namespace': argparse.Namespace,  # the command line in the authors' checkpoints
        'numpy.ndarray': _Array,
        'numpy.dtype': _Dtype,
    }
    for package in ('numpy.core', 'numpy._core'):  # names written by numpy 1 and numpy 2; both can be read
        found[f'{package}.multiarray._reconstruct'] = _numpy_array
        found[f'{package}.multiarray.scalar'] = _numpy_scalar
    return found


SAFE_GLOBALS: dict[str, Any] = _safe_globals()
"""Globals that a checkpoint may reference besides :data:`_TORCH_GLOBALS`: full path -> its replacement."""


# Tensors --------------------------------------------------------------------------------------------------------------


_MOST_DIMENSIONS = 64


def as_sizes(numbers: Any) -> list[int]:
    """A shape or strides, checked: multiplying too many dimensions could take forever."""
    if not isinstance(numbers, (tuple, list)) or len(numbers) > _MOST_DIMENSIONS:
        raise Refused('a shape that is none')
    if not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise Refused('a shape that is none')
    return list(numbers)


def _tensor(
    storage: Any,
    offset: int,
    size: tuple,
    stride: tuple,
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Replaces torch's ``_rebuild_tensor`` and ``_v2``: a view that must lie within its storage."""
    if type(storage) is not torch.storage.TypedStorage or metadata:
        raise Refused('a tensor that is not made of a storage')
    dtype, content = dtype or storage.dtype, storage._untyped_storage
    shape, steps, (start,) = as_sizes(size), as_sizes(stride), as_sizes([offset])
    available = content.nbytes() // torch.empty(0, dtype=dtype).element_size()
    last = start + sum((n - 1) * step for n, step in zip(shape, steps)) if prod(shape) else -1
    if len(shape) != len(steps) or last >= available or prod(shape) > available:
        raise Refused(f'a tensor of shape {tuple(shape)} over a storage of {available} elements')
    view = torch.empty(0, dtype=dtype, device=content.device)
    return view.set_(content, start, tuple(shape), tuple(steps)).requires_grad_(bool(requires_grad))


def _tensor_v3(
    storage: Any, offset: int, size: tuple, stride: tuple, requires_grad: bool, hooks: Any, dtype: Any, *metadata: Any
) -> Tensor:
    if not isinstance(dtype, torch.dtype) or any(metadata):
        raise Refused('a tensor of no type')
    return _tensor(storage, offset, size, stride, requires_grad, dtype=dtype)


def _parameter(data: Any, requires_grad: bool, hooks: Any = None) -> torch.nn.Parameter:
    if type(data) is not Tensor:
        raise Refused('a parameter that is not made of a tensor')
    return torch.nn.Parameter(data, bool(requires_grad))


_TORCH_GLOBALS = {
    'collections.OrderedDict': _made_of_keys(OrderedDict),
    'collections.Counter': _made_of_keys(Counter),
    'builtins.set': _made_of_keys(set),
    'builtins.bytes': _no_bytes,
    '_codecs.encode': _codecs_encode,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.storage.UntypedStorage': torch.storage.UntypedStorage,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
    'torch._utils._rebuild_parameter': _parameter,
    **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
}
"""Globals that torch itself writes: full path -> its replacement."""

GLOBALS = {**_TORCH_GLOBALS, **SAFE_GLOBALS}
# Compared by identity, because a crafted stream may call anything.
CALLED = {id(value) for value in GLOBALS.values() if callable(value)} - {
    id(value) for value in (_Array, _History, argparse.Namespace, torch.storage.UntypedStorage)
}
MADE_EMPTY = _History, argparse.Namespace  # objects that are created without arguments
FILLED = _Array, _Dtype, _History  # objects that are given a state
