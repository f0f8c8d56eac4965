"""``mmcondetr train`` as processes: a signal, and several ranks, one of which fails or has other data."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import write_config

from mmcondetr.checkpoints.files import load_file

pytestmark = pytest.mark.slow

QUICK = """
data = dict(generate=dict(num_train=8, num_val=4, image_size=64))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1))
custom_hooks = [dict(type='EmptyCacheHook')]
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp('processes'), QUICK)


def train(
    config: Path, work: Path, *options: str, program: tuple[str, ...] = ('-m', 'mmcondetr'), **environment: object
) -> subprocess.Popen:
    variables = {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(
        [sys.executable, '-u', *program, 'train', str(config), '--work-dir', str(work), '--verbose', *options],
        env=dict(os.environ, OMP_NUM_THREADS='1', **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


TERMINATED = """
import os, signal, sys
import mmcondetr
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmcondetr.cli import main

@HOOKS.register_module()
class Terminate(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:
            os.killpg(0, signal.SIGTERM)

sys.exit(main([*sys.argv[1:], 'custom_hooks.0.type=Terminate']))
"""


def test_sigterm_to_all_of_a_training(config, tmp_path):
    """Slurm's signal reaches the loader's workers, too."""
    whole = train(config, tmp_path / 'whole')
    assert whole.wait(timeout=300) == 0, whole.stdout.read()[-3000:]
    options = ('--cfg-options', 'train_dataloader.num_workers=1')
    process = train(config, tmp_path / 'run', *options, program=('-c', TERMINATED))
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 75, text[-3000:]
    assert 'Traceback' not in text and text.splitlines()[-1].startswith('stopped: iteration 3 is in')
    resumed = train(config, tmp_path / 'run', '--resume', *options)
    assert resumed.wait(timeout=300) == 0, resumed.stdout.read()[-3000:]
    states = [load_file(tmp_path / name / 'epoch_2.pth')['state_dict'] for name in ('whole', 'run')]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def together(
    config: Path,
    work: Path,
    seconds: int,
    second: tuple[str, ...] = (),
    program: tuple[str, ...] = ('-m', 'mmcondetr'),
) -> list[subprocess.Popen]:
    """Two ranks, of which the second has options of its own, and runs ``program``."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        place = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=server.getsockname()[1], WORLD_SIZE=2)
    options = ('--launcher', 'pytorch', '--cfg-options', f'env_cfg.dist_cfg.timeout={seconds}')
    return [
        train(config, work, *options, **place, RANK=0, LOCAL_RANK=0),
        train(config, work, *options, *second, program=program, **place, RANK=1, LOCAL_RANK=1),
    ]


@pytest.mark.parametrize(
    ('second', 'said'),
    [
        ('load_from=/no/such/file.pth', "load_from: checkpoint '/no/such/file.pth' does not exist"),
        ('train_dataloader.batch_size=1', 'the processes disagree on images or steps per epoch'),
    ],
)
def test_the_last_line_of_every_process_is_the_first_cause(config, tmp_path, second, said):
    started = time.monotonic()
    texts = [process.communicate(timeout=300)[0] for process in together(config, tmp_path, 120, (second,))]
    assert time.monotonic() - started < 100, 'they hear of it, and wait for no timeout'
    for text in texts:
        assert said in text.splitlines()[-1] and 'Traceback' not in text, text[-3000:]
    assert 'at most 120 s (env_cfg.dist_cfg.timeout)' in texts[0]


STOPPED = """
import os, signal, sys
import mmcondetr
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmcondetr.cli import main

@HOOKS.register_module()
class StopHere(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 1:
            print('stops', flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)

sys.exit(main([*sys.argv[1:], 'custom_hooks.0.type=StopHere']))
"""


def test_a_process_that_is_stopped_is_waited_for_as_long_as_is_set(config, tmp_path):
    """Like one that hangs in a driver, or whose machine is lost without notice: its sockets stay open."""
    first, second = together(config, tmp_path, 15, program=('-c', STOPPED))
    try:
        text = first.communicate(timeout=200)[0]
    finally:
        second.kill()
    assert 'stops' in second.communicate(timeout=60)[0], text[-3000:]
    assert first.returncode == 2 and 'Traceback' not in text, text[-3000:]
    cause = 'error: another process did not respond in time (env_cfg.dist_cfg.timeout); it hangs, or was stopped'
    assert text.splitlines()[-1] == cause


UNEVEN = """
_base_ = '{}'
data = dict(data_root='{}/', generate=dict(num_val=21))
train_dataloader = dict(dataset=data)
val_dataloader = dict(batch_size=1, sampler=dict(round_up=False), dataset=data)
val_evaluator = dict(ann_file='{}/annotations/val.json')
train_cfg = dict(max_epochs=1, val_interval=1)
"""


def test_validation_with_one_batch_more_on_one_process_ends(config, tmp_path):
    """21 images are 11 and 10 batches; before every tenth the processes agree on whether to stop."""
    uneven = tmp_path / 'uneven.py'
    data = tmp_path / 'data'
    uneven.write_text(UNEVEN.format(config, data, data))
    processes = together(uneven, tmp_path, 30)
    for process in processes:
        text = process.communicate(timeout=200)[0]
        assert process.returncode == 0, text[-3000:]
