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

from mmcondetr.engine.checkpoint_io import load_file

pytestmark = pytest.mark.slow

LOADER = '''
train_dataloader = dict(num_workers={workers}, persistent_workers={persistent})
val_dataloader = dict(num_workers={workers}, persistent_workers={persistent})
test_dataloader = dict(num_workers={workers}, persistent_workers={persistent})
'''
BY_ITERATION = '''
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=30, val_interval=7)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=30, by_epoch=False, milestones=[20], gamma=0.1)]
train_dataloader = dict(sampler=dict(type='mmcondetr.InfiniteEpochSampler'))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10))
log_processor = dict(by_epoch=False)
'''
BY_ITERATION_IN_PASSES = BY_ITERATION.replace('InfiniteEpochSampler', 'EpochSampler')
WITHOUT_SEED = '''
randomness = dict(seed=None, _delete_=True)
'''


def loader(workers: int) -> str:
    return LOADER.format(workers=workers, persistent=workers > 0)


def kill_after(config: Path, work_dir: Path, checkpoint: str) -> None:
    """Start training, and kill it at some moment of the epoch after ``checkpoint`` was written."""
    process = start(config, work_dir)
    try:
        deadline = time.time() + 120
        while not (work_dir / checkpoint).exists() and process.poll() is None and time.time() < deadline:
            time.sleep(0.01)
        assert (work_dir / checkpoint).exists(), work_dir.with_suffix('.log').read_text()[-3000:]
        time.sleep(random.uniform(0, 0.15))
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its data loader's workers, too
        process.wait()
    assert process.returncode == -signal.SIGKILL, 'training had ended before it could be killed'


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
    for part in ('state_dict', 'optimizer', 'param_schedulers', 'random_state'):
        assert_equal(one[part], other[part], part)
    assert one['meta']['iter'] == other['meta']['iter'] == 30


@pytest.mark.parametrize('extra, middle, last', [
    ('', 'epoch_2.pth', 'epoch_6.pth'),
    (BY_ITERATION, 'iter_10.pth', 'iter_30.pth'),
    (BY_ITERATION_IN_PASSES, 'iter_10.pth', 'iter_30.pth'),
], ids=['epochs', 'iterations', 'iterations-in-passes'])
@pytest.mark.parametrize('workers', [0, 2])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, workers, extra, middle, last):
    config = write_config(tmp_path, loader(workers), extra)
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    finish(start(config, whole), whole)
    kill_after(config, broken, middle)
    assert not (broken / last).exists()
    output = finish(start(config, broken, 'resume'), broken)
    assert 'Auto resumed from the latest checkpoint' in output
    assert_same_training(whole / last, broken / last)


def test_workers_do_not_change_training(tmp_path):
    runs = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        runs.append(folder / 'run')
        finish(start(write_config(folder, loader(workers)), runs[-1]), runs[-1])
    assert_same_training(runs[0] / 'epoch_6.pth', runs[1] / 'epoch_6.pth')


def test_resuming_keeps_the_seed_that_was_drawn(tmp_path):
    """Where the config has no seed, the resumed run has the first run's order and augmentation."""
    config = write_config(tmp_path, loader(0), WITHOUT_SEED)
    whole, again = tmp_path / 'whole', tmp_path / 'again'
    finish(start(config, whole), whole)
    again.mkdir()
    # max_keep_ckpts=2 leaves the last two: go on from the last but one.
    shutil.copy(whole / 'epoch_5.pth', again / 'epoch_5.pth')
    (again / 'last_checkpoint').write_text(str(again / 'epoch_5.pth'))
    finish(start(config, again, 'resume'), again)
    assert_same_training(whole / 'epoch_6.pth', again / 'epoch_6.pth')


DIES_WHILE_WRITING = '''
import os, signal, sys
import mmcondetr
from mmengine.config import Config
from mmengine.runner import Runner
from mmcondetr.engine import checkpoint_hook

class Dying(checkpoint_hook.AtomicBackend):
    def put(self, obj, filepath):
        if filepath.endswith('epoch_3.pth'):
            with checkpoint_hook.replacing(filepath) as temporary:
                temporary.write_bytes(obj[:len(obj) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        super().put(obj, filepath)

checkpoint_hook.register_backend('mmcondetr_atomic', Dying, force=True)
config = Config.fromfile(sys.argv[1])
config.work_dir = sys.argv[2]
Runner.from_cfg(config).train()
'''


def test_killed_while_writing_leaves_the_former_checkpoint(tmp_path):
    config = write_config(tmp_path, loader(0), "default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))\n")
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    finish(start(config, whole), whole)
    assert start(config, broken, program=DIES_WHILE_WRITING).wait(timeout=300) == -signal.SIGKILL
    leftovers = [path.name for path in broken.iterdir() if path.name.endswith('.tmp')]
    assert len(leftovers) == 1 and 'epoch_3' in leftovers[0]
    assert not (broken / 'epoch_3.pth').exists()
    assert load_file(broken / 'epoch_2.pth')['meta']['epoch'] == 2
    assert (broken / 'last_checkpoint').read_text() == str(broken / 'epoch_2.pth')
    finish(start(config, broken, 'resume'), broken)
    assert_same_training(whole / 'epoch_6.pth', broken / 'epoch_6.pth')
    assert sorted(path.name for path in broken.glob('*.pth')) == ['epoch_6.pth'], 'one checkpoint is kept'
    assert not list(broken.glob('.*.tmp')), 'what the kill left is removed'
