"""Reading checkpoint files without executing code from them.

mmcondetr.checkpoints.reading replaces mmengine's loader, so that ``load_from``, ``--resume``, ``init_cfg`` and
DetInferencer all read local files through :func:`load_file`.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from typing import Any

import torch

from mmcondetr.compat.plain_values import AsksForCode, Refused
from mmcondetr.compat.safe_loading import torch_load
from mmcondetr.compat.torch_archive import START
from mmcondetr.errors import UserError

_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    struct.error,
)
_LARGEST_HEADER = 1 << 20, 8  # bytes, and the part of the file: one with 1000 tensors has 100 kB
_SHOWN = 12  # keys named in a message


def _describe_start(path: str) -> str:
    """A likely reason why torch cannot read the file, judged from its first bytes."""
    with open(path, 'rb') as file:
        start = file.read(512)
    size = os.path.getsize(path)
    if not start:
        return 'it is empty'
    if start.lstrip()[:1] == b'<':
        return 'it is an HTML or XML page, such as a server sends for a missing file: download it again'
    if start.startswith(b'version https://git-lfs'):
        return 'it is a Git LFS pointer: run "git lfs pull"'
    if start.startswith(START):
        return 'it is damaged, or a ZIP file but not one that torch.save wrote'
    return f'it is truncated or was not written by torch.save ({size} bytes, begins with {start[:8]!r})'


def _check_header(path: str) -> None:
    """Check the header of a safetensors file: both its readers make more of it than it takes in the file.

    Raises:
        UserError: it is too long for the file's tensors, or has a name twice, which stands for other tensors in other
            programs.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise UserError(f"Checkpoint '{path}' is refused: a name is in its header twice.")
        return found

    with open(path, 'rb') as file:
        length, size = int.from_bytes(file.read(8), 'little'), os.path.getsize(path)
        if length > size:
            return  # the reader says what is wrong with it
        if length > max(_LARGEST_HEADER[0], size // _LARGEST_HEADER[1]):
            raise UserError(
                f"Checkpoint '{path}' is refused: {length} of its {size} bytes are the header of a safetensors file."
            )
        try:
            json.loads(file.read(length), object_pairs_hook=once)
        except (ValueError, RecursionError):
            return


def _load_safetensors(path: str, map_location: Any) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_tensors

    _check_header(path)
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        return dict(state_dict=load_tensors(path, device=str(device)))
    except SafetensorError as error:
        raise UserError(f"Checkpoint '{path}' is not a complete safetensors file: {error}.") from error


def load_file(path: str | os.PathLike, map_location: Any = None) -> dict:
    """Read a checkpoint (.pth, .pt, .safetensors) that may contain only tensors and plain values.

    Raises:
        UserError: The file is missing, contains code (the message names it), is truncated, or is not a checkpoint.
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise UserError(f"Checkpoint '{path}' does not exist (load_from, --resume or init_cfg names it).")
    if path.endswith('.safetensors'):
        return _load_safetensors(path, map_location)
    try:
        checkpoint = torch_load(path, map_location=map_location)
    except AsksForCode as error:
        raise UserError(
            f"Checkpoint '{path}' is refused: it asks for '{error.name}', which is code and not a tensor or a plain "
            'value. Loading it could run anything.'
        ) from error
    except Refused as error:
        raise UserError(f"Checkpoint '{path}' is refused: it holds {error}.") from error
    except zipfile.BadZipFile as error:
        raise UserError(
            f"Checkpoint '{path}' cannot be read: it is truncated or damaged ({error}): copy or download it again."
        ) from error
    except _UNREADABLE as error:
        raise UserError(f"Checkpoint '{path}' cannot be read: {_describe_start(path)}.") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"Checkpoint '{path}' holds a {type(checkpoint).__name__}, not a dict of weights.")
    return checkpoint


def check_fits(module: torch.nn.Module, state_dict: dict, prefix: str = '') -> None:
    """Check that a state dict fits a module before it is loaded; mmengine would only print the differences.

    BatchNorm's ``num_batches_tracked`` may be absent: it is unused, and torchvision's old files lack it.

    Raises:
        UserError: Keys are missing, unknown, or of another shape.
    """
    given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    expected = module.state_dict()
    missing = [key for key in expected if key not in given and not key.endswith('num_batches_tracked')]
    unknown = [key for key in given if key not in expected]
    shapes = [
        f'{key} is {tuple(given[key].shape)}, the model has {tuple(value.shape)}'
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    parts = [
        f'{what} ({len(keys)}): {"; ".join(keys[:_SHOWN])}{"; ..." if len(keys) > _SHOWN else ""}'
        for what, keys in (('missing', missing), ('unknown', unknown), ('of another shape', shapes))
        if keys
    ]
    if parts:
        raise UserError(
            f'The checkpoint does not fit the {type(module).__name__} of this config. Keys '
            f'{". Keys ".join(parts)}. Use the config it was trained with, or correct load_from.'
        )
