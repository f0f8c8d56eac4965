"""The processes that load images end with the run."""

import time
from multiprocessing import active_children
from types import SimpleNamespace

from torch.utils.data import DataLoader

from mmcondetr.engine.closing_hook import ClosingHook


def test_a_runs_loaders_end_with_it_and_another_run_starts_them_again():
    before, loader = len(active_children()), DataLoader(range(4), num_workers=2, persistent_workers=True)
    runner = SimpleNamespace(
        _train_loop=SimpleNamespace(dataloader=loader),
        _val_loop=dict(type='ValLoop'),
        _test_loop=None,
    )
    for _ in range(2):
        assert sorted(loader) == [0, 1, 2, 3]
        assert len(active_children()) == before + 2
        started = time.monotonic()
        ClosingHook().after_run(runner)
        assert len(active_children()) == before and time.monotonic() - started < 4, 'they are told, and not waited for'


def test_loaders_without_processes_are_left_alone():
    loader = DataLoader(range(4))
    ClosingHook().after_run(
        SimpleNamespace(_train_loop=SimpleNamespace(dataloader=loader), _val_loop=None, _test_loop=None)
    )
    assert sorted(loader) == [0, 1, 2, 3]
