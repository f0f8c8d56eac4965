"""States of generators from files: every real one is accepted, and none that a generator cannot have."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mmcondetr.datasets.random_state import _TORCH, get_random_state, seeded, set_random_state


def change_torch(**values) -> Callable[[dict], None]:
    def change(state: dict) -> None:
        fields = np.frombuffer(bytearray(state['torch'].numpy().tobytes()), _TORCH)
        for name, value in values.items():
            fields[name] = value
        state['torch'] = torch.from_numpy(fields.view(np.uint8))

    return change


def change_part(part: str, **values) -> Callable[[dict], None]:
    return lambda state: state[part].update(values)


WORDS = torch.arange(1, 626)
DAMAGE = {
    **{f'position {n}': change_part('numpy', position=n) for n in (625, 10**6, -5, 2**31 - 1, -(2**31), 2**40, 1.5)},
    'no words': change_part('numpy', keys=torch.zeros(0, dtype=torch.int64)),
    'words as fractions': change_part('numpy', keys=WORDS[:624] / 3),
    'a word of 33 bits': change_part('numpy', keys=WORDS[:624] + 2**32),
    'a negative word': change_part('python', words=WORDS - 2),
    'words of 0': change_part('numpy', keys=torch.zeros(624, dtype=torch.int64)),
    'another generator': change_part('numpy', name='PCG64'),
    'two gaussians': change_part('numpy', has_gauss=2),
    'a gaussian NaN': change_part('numpy', cached=math.nan),
    'index 625': change_part('python', words=WORDS),
    'too few words': change_part('python', words=WORDS[:-1]),
    'a gaussian text': change_part('python', gauss='x'),
    'left and next 624': change_torch(left=624, next=624),
    'next 600 early': change_torch(left=600, next=600),
    'next of 64 bits': change_torch(left=1, next=2**40),
    'left 0': change_torch(left=0, next=625),
    'left negative': change_torch(left=-1, next=626),
    'words of 0 in torch': change_torch(words=0),
    'a word of 33 bits in torch': change_torch(words=2**32 + 1),
    'a double NaN': change_torch(has_double=1, double=math.nan),
    'an infinite float': change_torch(has_float=1, float=math.inf),
    'a short torch state': lambda state: state.update(torch=state['torch'][:-1]),
    'a torch state of floats': lambda state: state.update(torch=state['torch'].float()),
}


@pytest.mark.parametrize('name', DAMAGE)
def test_a_damaged_state_is_refused_and_changes_nothing(name):
    with seeded(1):
        state = get_random_state()
        damaged = copy.deepcopy(state)
        DAMAGE[name](damaged)
        with pytest.raises((ValueError, TypeError)):
            set_random_state(damaged)
        set_random_state(state)  # and the undamaged one is accepted


def test_every_state_of_a_sequence_is_accepted():
    draws = (
        lambda: torch.rand(1),
        lambda: torch.randn(3),
        lambda: torch.randn(1, dtype=torch.float64),
        lambda: torch.randint(0, 9, (311,)),
        lambda: np.random.randn(),
        lambda: np.random.rand(97),
        lambda: random.gauss(0, 1),
        lambda: random.random(),
    )
    positions = set()
    with seeded(2):
        for index in range(900):
            before = get_random_state()
            first = draws[index % len(draws)]()
            set_random_state(before)
            second = draws[index % len(draws)]()
            assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))
            fields = np.frombuffer(before['torch'].numpy().tobytes(), _TORCH)[0]
            positions.add((int(fields['left']), int(fields['next'])))
    assert (1, 0) in positions, 'just seeded'
    assert {left + used for left, used in positions} == {1, 625} and len(positions) > 100
