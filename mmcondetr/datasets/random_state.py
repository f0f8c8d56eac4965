"""Reads, sets and temporarily seeds the global random number generators of Python, NumPy and PyTorch.

A state is a dict of tensors, numbers and lists, so checkpoints with it can be loaded with ``weights_only=True``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_WORDS = 624  # of a Mersenne twister, of 32 bits each

_TORCH = np.dtype(
    [('seed', '=u8'), ('left', '=i4'), ('seeded', '=i4'), ('next', '=u8'), ('words', '=u8', _WORDS)]
    + [('unused_x', '=f8'), ('double', '=f8'), ('unused_rho', '=f8'), ('has_double', '=i4'), ('unused', 'V4')]
    + [('float', '=f4'), ('has_float', 'u1'), ('padding', 'V3')]
)
"""ATen's ``CPUGeneratorImplState``, 5056 bytes: words in 64 bits each, then a Gaussian number of each precision."""


def get_random_state() -> dict:
    """The generators' states in this process, with CUDA's of the current device if CUDA is in use."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state = dict(
        python=dict(version=version, words=torch.tensor(words, dtype=torch.int64), gauss=gauss),
        numpy=dict(
            name=name,
            keys=torch.from_numpy(keys.astype(np.int64)),
            position=int(position),
            has_gauss=int(has_gauss),
            cached=float(cached),
        ),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Restore what :func:`get_random_state` returned; its tensors may since have been moved to another device.

    Positions and words are checked here: NumPy and PyTorch read beyond their arrays where a file's positions say so.

    Raises:
        ValueError: a part is no state of its generator. Other damage raises KeyError, TypeError, AttributeError or
            RuntimeError.
    """
    python, numpy = state['python'], state['numpy']
    words, gauss = _whole(python['words'], _WORDS + 1, 'python.words'), python['gauss']
    _check_words(words[:_WORDS], words[_WORDS], 'python.words')
    if gauss is not None:
        _check_gauss(gauss, 'python.gauss')
    keys, position = _whole(numpy['keys'], _WORDS, 'numpy.keys'), numpy['position']
    _check_words(keys, position, 'numpy.keys and position')
    _check_gauss(numpy['cached'], 'numpy.cached')
    if type(numpy['has_gauss']) is not int or numpy['has_gauss'] not in (0, 1):
        raise ValueError(f'numpy.has_gauss is {numpy["has_gauss"]!r:.40}, not 0 or 1')
    torch_state = state['torch'].cpu()
    _check_torch(torch_state)
    random.setstate((python['version'], tuple(words.tolist()), gauss))
    np.random.set_state((numpy['name'], keys.astype(np.uint32), position, numpy['has_gauss'], numpy['cached']))
    torch.set_rng_state(torch_state)
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def _whole(values: torch.Tensor, count: int, name: str) -> np.ndarray:
    """``values`` as an array (count,) of whole numbers, int64."""
    if values.dtype != torch.int64 or values.shape != (count,):
        raise ValueError(f'{name} has type {values.dtype} and shape {list(values.shape)}, not int64 and {[count]}')
    return values.cpu().numpy()


def _check_words(words: np.ndarray, position: int, name: str) -> None:
    """Check the state (624,) of a Mersenne twister and the place of its next word, 0 to 624.

    Of the first word only the highest bit counts; if that and all others are 0, every number is 0 for ever, and NumPy
    searches for a Gaussian pair without end.
    """
    if not isinstance(position, (int, np.integer)) or isinstance(position, bool) or not 0 <= position <= _WORDS:
        raise ValueError(f'{name}: the position is {position!r:.40}, not 0 to {_WORDS}')
    if words.min() < 0 or words.max() >= 2**32:
        raise ValueError(f'{name}: a word is not within 0 to 2**32 - 1')
    if not words[1:].any() and words[0] < 2**31:
        raise ValueError(f'{name}: all words are 0')


def _check_gauss(value: float, name: str) -> None:
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f'{name} is {value!r:.40}, not a finite number')


def _check_torch(state: torch.Tensor) -> None:
    """Check what PyTorch's CPU generator does not: that ``left`` and ``next`` are of one position, and the words.

    The layout is that of ATen's ``CPUGeneratorImplState``. ``next`` words are used and ``left - 1`` are not, except
    that a generator that was just seeded, or made by PyTorch's first versions, has ``left`` 1: new words come first.
    """
    if state.dtype != torch.uint8 or state.shape != (_TORCH.itemsize,):
        raise ValueError(
            f'torch has type {state.dtype} and shape {list(state.shape)}, not uint8 and {[_TORCH.itemsize]}'
        )
    fields = np.frombuffer(state.numpy().tobytes(), _TORCH)[0]
    left, position = int(fields['left']), int(fields['next'])
    if not (1 <= left <= _WORDS and position <= _WORDS and (left == 1 or left + position == _WORDS + 1)):
        raise ValueError(f'torch: left and next are {left} and {position}, which no generator has')
    _check_words(fields['words'], position, 'torch')
    for name in ('double', 'float'):
        if fields[f'has_{name}'] not in (0, 1) or (fields[f'has_{name}'] and not np.isfinite(fields[name])):
            raise ValueError(f'torch: the Gaussian number kept as {name} is not finite')


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the CPU generators with ``numbers`` (each >= 0); on exit their states are restored."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(numbers).generate_state(8)
    random.seed(words[:4].tobytes())
    np.random.seed(words[4:6])
    torch.default_generator.manual_seed(int(words[6:8].view(np.int64)[0]))  # torch.manual_seed would also seed CUDA's
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
