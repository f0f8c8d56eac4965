"""``torch.load`` limited to tensors and plain values: executes nothing and bounds memory by the file size.

The same reader is used with all versions of torch: before 2.6, torch's ``weights_only=True`` cannot read mmengine's
checkpoints, and in any version it lets a small file allocate excessive memory and read beyond its data. A checkpoint
may only reference :data:`~mmcondetr.compat.plain_values.GLOBALS`.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import tarfile
import types
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mmcondetr.compat.plain_values import (
    CALLED,
    FILLED,
    GLOBALS,
    MADE_EMPTY,
    SAFE_GLOBALS,
    AsksForCode,
    Refused,
    as_sizes,
    check_key,
    check_structure,
    kind_of,
    versions_in,
)
from mmcondetr.compat.torch_archive import START, records_of

_MOST_OPCODES = 1_000_000  # a checkpoint with 1,000 tensors and their optimizer state has 60,000
_MOST_MADE = 3, 16 << 20  # values made of others, tensors that share a storage too: multiple of the file size, bytes
_ITEM = 100  # bytes that an item of a container takes, about
_UNUSED = (  # do not occur in checkpoints
    *('PERSID', 'INST', 'OBJ', 'NEWOBJ_EX', 'EXT1', 'EXT2', 'EXT4', 'FROZENSET'),
    *('BYTEARRAY8', 'NEXT_BUFFER', 'READONLY_BUFFER'),
)


class _Counted(dict):
    """Opcode -> method, with a limited number of look-ups."""

    left = _MOST_OPCODES

    def __getitem__(self, opcode: int) -> Callable:
        self.left -= 1
        if self.left < 0:
            raise Refused(f'more than {_MOST_OPCODES} values')
        if opcode not in self:
            raise pickle.UnpicklingError(f'no opcode of a checkpoint: {opcode}')  # usually a file of another kind
        return super().__getitem__(opcode)


class _Unpickler(pickle._Unpickler):  # in Python, because the C version allocates whatever the file declares
    """Creates containers and objects in :data:`GLOBALS` only, and storages that the file contains."""

    storage_size: Callable[[str, int], int]  # set for each file: (key, declared bytes) -> available bytes
    file_size: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dispatch = _Counted(self.__class__._methods())
        self._made = 0  # bytes
        read = self._file_read

        def read_what_there_is(size: int) -> bytes:  # files allocate before they read
            if size > self.file_size:
                raise pickle.UnpicklingError(f'{size} bytes in a file of {self.file_size}')
            return read(size)

        self._file_read = read_what_there_is

    @classmethod
    def _methods(cls) -> dict[int, Callable]:
        methods = {op: getattr(cls, method.__name__) for op, method in pickle._Unpickler.dispatch.items()}
        for name in _UNUSED:
            del methods[getattr(pickle, name)[0]]
        return methods

    def load(self) -> Any:
        loaded = super().load()
        check_structure(loaded)
        return loaded

    def find_class(self, module: str, name: str) -> Any:
        path = f'builtins.{name}' if module == '__builtin__' else f'{module}.{name}'  # its name in pickle protocol 2
        if path not in GLOBALS:
            raise AsksForCode(path)
        return GLOBALS[path]

    def load_reduce(self) -> None:
        args = self.stack.pop()
        function = self.stack[-1]
        if id(function) not in CALLED or type(args) is not tuple:
            raise Refused(f'a call of {kind_of(function)}')
        self._count(args)
        made = self.stack[-1] = function(*args)
        self._count([made] if isinstance(made, Tensor) else [])

    def _count(self, values: Iterable[Any]) -> None:
        """Add the size of values that are copied, or made: one that is in the file once can be copied many times."""
        self._made += sum(map(_size_of, values))
        if self._made > _MOST_MADE[0] * self.file_size + _MOST_MADE[1]:
            raise Refused(f'values of {self._made} bytes in a file of {self.file_size}')

    def load_newobj(self) -> None:
        args, kind = self.stack.pop(), self.stack.pop()
        if not any(kind is allowed for allowed in MADE_EMPTY) or args != ():
            raise Refused(f'an object of {kind_of(kind)}')
        self.append(kind.__new__(kind))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        self._count(state.values() if type(state) is dict else state if type(state) is tuple else [])
        if type(target) in FILLED:
            target.__setstate__(state)
        elif type(target) is argparse.Namespace and type(state) is dict and all(type(name) is str for name in state):
            self._count([state])
            vars(target).update(state)
        elif type(target) is OrderedDict and type(state) is dict and set(state) <= {'_metadata'}:  # of a state dict
            for metadata in state.values():
                self._count([metadata])
                target._metadata = versions_in(metadata)
        else:
            raise Refused(f'a state of {kind_of(target)}')

    def load_binpersid(self) -> None:
        storage = self.stack.pop()
        if type(storage) is not tuple or len(storage) not in (5, 6) or storage[0] != 'storage':
            raise Refused('a reference to something that is not in the file')
        _, kind, key, where, count = storage[:5]
        dtype = torch.uint8 if kind is torch.storage.UntypedStorage else getattr(kind, 'dtype', None)
        if not isinstance(dtype, torch.dtype) or type(key) is not str or type(where) is not str:
            raise Refused('a storage of no type')
        view = storage[5] if len(storage) == 6 else None
        if view is not None and (type(view) is not tuple or list(map(type, view)) != [str, int, int]):
            raise Refused('a part of a storage that is none')
        declared = as_sizes([count])[0] * torch.empty(0, dtype=dtype).element_size()
        if declared > self.storage_size(key, declared):
            raise Refused(f'a storage of {declared} bytes, more than the file has for it')
        self.append(self.persistent_load(storage))

    def _target(self, *kinds: type) -> Any:
        if type(self.stack[-1]) not in kinds:
            raise Refused(f'items of {kind_of(self.stack[-1])}')
        return self.stack[-1]

    def load_append(self) -> None:
        value = self.stack.pop()
        self._target(list).append(value)

    def load_appends(self) -> None:
        values = self.pop_mark()
        self._target(list).extend(values)

    def load_additems(self) -> None:
        values = self.pop_mark()
        for value in values:
            check_key(value)
        self._target(set).update(values)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._fill(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._fill(items)

    def _fill(self, items: list) -> None:
        """Put keys and values, in turn, into the dict on top of the stack."""
        for key in items[::2]:
            check_key(key)
        target = self._target(dict, OrderedDict, Counter)
        for key, value in zip(items[::2], items[1::2]):  # Counter.update would count the pairs, and hash the values
            target[key] = value


def _size_of(value: Any) -> int:
    """About the bytes that a copy takes."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (str, bytes)):
        return len(value)
    return _ITEM * len(value) if isinstance(value, (list, tuple, dict, set)) else 0


def _pickle_module(
    storage_size: Callable[[str, int], int], file_size: int, check: Callable[[Any], None] = lambda loaded: None
) -> types.ModuleType:
    """A pickle module for ``torch.load``; ``check`` gets what is read outside of the checkpoint itself."""
    bound = dict(storage_size=staticmethod(storage_size), file_size=file_size)
    module = types.ModuleType('mmcondetr_safe_pickle')
    module.Unpickler = type('Unpickler', (_Unpickler,), bound)

    def load(file: BinaryIO, **options: Any) -> Any:
        loaded = module.Unpickler(file, **options).load()
        check(loaded)
        return loaded

    module.load = load
    return module


def _is_tar(block: bytes) -> bool:
    """Whether torch would unpack a file with this first block, as an archive of its first versions."""
    try:
        tarfile.TarInfo.frombuf(block, 'utf-8', 'surrogateescape')
    except tarfile.HeaderError:
        return block == bytes(tarfile.BLOCKSIZE)  # an empty archive
    return True


def _reader(file: BinaryIO) -> types.ModuleType:
    size = os.fstat(file.fileno()).st_size
    start = file.read(tarfile.BLOCKSIZE)
    if start.startswith(START):  # as torch decides
        records = records_of(file)
        sizes = {name: record.size for name, record in records.items()}
        return _pickle_module(lambda key, declared: sizes.get(f'data/{key}', -1), size)
    if _is_tar(start):
        raise Refused('a tar archive, which torch would unpack')
    storages: dict[str, int] = {}  # torch.save before 1.6 stores the sizes of storages after the pickle

    def left(key: str, declared: int) -> int:
        storages[key] = max(declared, storages.get(key, 0))
        return size - sum(storages.values()) + storages[key]

    def check(loaded: Any) -> None:
        # The only value behind those with storages is the list of storages, into which torch reads the rest of the
        # file; the memory of one that is not in it would stay as it was.
        listed = [key for key in loaded if type(key) is str] if type(loaded) is list else []
        if storages and sorted(listed) != sorted(storages):
            raise Refused('storages whose content is not in the file')

    return _pickle_module(left, size, check)


def torch_load(path: str | os.PathLike, map_location: Any = None) -> Any:
    """``torch.load`` without code execution: reads tensors, plain values and :data:`SAFE_GLOBALS` only.

    Raises:
        Refused: the file contains anything else, or declares more than it contains.
        BadZipFile: its archive is truncated or damaged, or could be read in two ways.
    """
    with open(path, 'rb') as file:  # opened once, so that what is checked is what is read
        module = _reader(file)
        file.seek(0)
        # weights_only=True has no allow-list in torch < 2.6; this reader is at least as strict.
        return torch.load(file, map_location=map_location, pickle_module=module, weights_only=False, mmap=False)


def register_safe_globals() -> None:
    """Let mmengine's own ``torch.load`` read its checkpoints with torch >= 2.6, which rejects unknown globals."""
    if tuple(map(int, re.findall(r'\d+', torch.__version__)[:2])) >= (2, 6):
        torch.serialization.add_safe_globals([(value, path) for path, value in SAFE_GLOBALS.items()])
