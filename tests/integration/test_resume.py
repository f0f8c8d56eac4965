"""Training killed with SIGKILL and resumed gives bit for bit what an uninterrupted run gives (CPU, fixed seed)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from tiny import finish, start, write_config

from mmcondetr.checkpoints.files import load_file

pytestmark = pytest.mark.slow

LOADER = """
train_dataloader = dict(num_workers={workers}, persistent_workers={persistent})
val_dataloader = dict(num_workers={workers}, persistent_workers={persistent})
test_dataloader = dict(num_workers={workers}, persistent_workers={persistent})
"""
BY_ITERATION = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=30, val_interval=7)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=30, by_epoch=False, milestones=[20], gamma=0.1)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10))
log_processor = dict(by_epoch=False)
"""
GROUPS = """
model = dict(training_queries=dict(type='mmcondetr.QueryGroups', num_groups=3))
"""
AVERAGES = """
ema_type = 'mmdet.ExpMomentumEMA'
custom_hooks = [dict(type='mmengine.EMAHook', ema_type=ema_type, momentum=0.05, gamma=5, update_buffers=True)]
"""
WITHOUT_SEED = """
randomness = dict(seed=None, _delete_=True)
"""


def loader(workers: int) -> str:
    return LOADER.format(workers=workers, persistent=workers > 0)


def kill_after(config: Path, work_dir: Path, checkpoint: str) -> None:
    """Start training, and kill it at some moment of the epoch after ``checkpoint`` was written."""
    process = start(config, work_dir)
    try:
        deadline = time.time() + 120
        while not (work_dir / checkpoint).exists() and process.exitcode is None and time.time() < deadline:
            time.sleep(0.01)
        assert (work_dir / checkpoint).exists(), work_dir.with_suffix('.log').read_text()[-3000:]
        time.sleep(random.uniform(0, 0.15))
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its data loader's workers, too
        process.join()
    assert process.exitcode == -signal.SIGKILL, 'training had ended before it could be killed'


def assert_equal(first, second, where: str = '') -> None:
    """Equal to the last bit, through dicts and lists."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_equal(first[key], second[key], f'{where}/{key}')
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second)):
            assert_equal(one, other, f'{where}/{index}')
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def assert_same_training(first: Path, second: Path) -> None:
    one, other = load_file(first), load_file(second)
    for part in ('state_dict', 'optimizer', 'param_schedulers', 'random_state', 'ema_state_dict'):
        assert_equal(one.get(part), other.get(part), part)
    assert one['meta']['iter'] == other['meta']['iter'] == 30


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """The folder of an uninterrupted run of the config with some changes, run once for all tests."""
    runs = {}

    def run(*changes: str) -> Path:
        if changes not in runs:
            folder = tmp_path_factory.mktemp('whole')
            runs[changes] = folder / 'run'
            finish(start(write_config(folder, *changes), runs[changes]), runs[changes])
        return runs[changes]

    return run


@pytest.mark.parametrize(
    'changes, middle, last',
    [
        ([loader(0)], 'epoch_2.pth', 'epoch_6.pth'),
        ([loader(2)], 'epoch_2.pth', 'epoch_6.pth'),
        ([loader(2), BY_ITERATION], 'iter_10.pth', 'iter_30.pth'),
    ],
    ids=['epochs-0-workers', 'epochs-2-workers', 'iterations-2-workers'],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, uninterrupted, changes, middle, last):
    config, work_dir = write_config(tmp_path, *changes), tmp_path / 'run'
    kill_after(config, work_dir, middle)
    assert not (work_dir / last).exists()
    output = finish(start(config, work_dir, 'resume'), work_dir)
    assert 'Auto resumed from the latest checkpoint' in output
    assert_same_training(uninterrupted(*changes) / last, work_dir / last)


def test_workers_do_not_change_training(uninterrupted):
    assert_same_training(uninterrupted(loader(0)) / 'epoch_6.pth', uninterrupted(loader(2)) / 'epoch_6.pth')


@pytest.mark.parametrize(
    'changes, middle, last',
    [
        ([loader(0), WITHOUT_SEED], 'epoch_5.pth', 'epoch_6.pth'),
        ([loader(0), BY_ITERATION], 'iter_20.pth', 'iter_30.pth'),
        ([loader(0), GROUPS], 'epoch_5.pth', 'epoch_6.pth'),
        ([loader(0), AVERAGES], 'epoch_5.pth', 'epoch_6.pth'),
    ],
    ids=['without-a-seed', 'iterations-in-passes', 'groups-of-queries', 'averaged-weights'],
)
def test_resuming_from_a_checkpoint_of_a_finished_run(tmp_path, uninterrupted, changes, middle, last):
    """Without a seed in the config, the resumed run still has the first run's order and augmentation."""
    whole, work_dir = uninterrupted(*changes), tmp_path / 'run'
    work_dir.mkdir()
    shutil.copy(whole / middle, work_dir / middle)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / middle))
    finish(start(write_config(tmp_path, *changes), work_dir, 'resume'), work_dir)
    assert_same_training(whole / last, work_dir / last)
    assert ('ema_state_dict' in load_file(work_dir / last)) == (AVERAGES in changes)


DIES_WHILE_WRITING = """
import os, signal, sys
import mmcondetr
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.fileio import register_backend
from mmcondetr.engine.saving import AtomicBackend
from mmcondetr.writing import replacing

class Dying(AtomicBackend):
    def put(self, obj, filepath):
        if filepath.endswith('epoch_3.pth'):
            with replacing(filepath) as temporary:
                temporary.write_bytes(obj[:len(obj) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        super().put(obj, filepath)

register_backend('mmcondetr_atomic', Dying, force=True)
config = Config.fromfile(sys.argv[1])
config.work_dir = sys.argv[2]
Runner.from_cfg(config).train()
"""


def test_killed_while_writing_leaves_the_former_checkpoint(tmp_path, uninterrupted):
    config = write_config(tmp_path, loader(0), 'default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))\n')
    broken = tmp_path / 'broken'
    process = start(config, broken, program=DIES_WHILE_WRITING)
    process.join(timeout=300)
    assert process.exitcode == -signal.SIGKILL
    leftovers = [path.name for path in broken.iterdir() if path.name.endswith('.tmp')]
    assert len(leftovers) == 1 and 'epoch_3' in leftovers[0]
    assert not (broken / 'epoch_3.pth').exists()
    assert load_file(broken / 'epoch_2.pth')['meta']['epoch'] == 2
    assert (broken / 'last_checkpoint').read_text() == str(broken / 'epoch_2.pth')
    finish(start(config, broken, 'resume'), broken)
    assert_same_training(uninterrupted(loader(0)) / 'epoch_6.pth', broken / 'epoch_6.pth')
    assert sorted(path.name for path in broken.glob('*.pth')) == ['epoch_6.pth'], 'one checkpoint is kept'
    assert not list(broken.glob('.*.tmp')), 'what the kill left is removed'
