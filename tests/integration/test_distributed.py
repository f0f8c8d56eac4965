"""Several processes on a CPU: gloo starts, and two processes do what one does with twice the batch."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from mmengine.config import Config

from mmcondetr.engine import launching as launch
from mmcondetr.errors import UserError

WORKER = Path(__file__).with_name('gradient_worker.py')
TORCHRUN = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without CUDA')


def run(*command: object, environment: dict) -> None:
    """Run a command; if it does not end, fail with the stacks of all its processes."""
    process = subprocess.Popen(
        [*map(str, command)],
        env={**environment, 'CUDA_VISIBLE_DEVICES': '-1', 'PYTHONFAULTHANDLER': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=250)
    except subprocess.TimeoutExpired:
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.send_signal(signal.SIGABRT)  # faulthandler prints where it is
        output, _ = process.communicate()
        pytest.fail(
            f'does not end; files: {sorted(path.name for path in Path(command[-3]).parent.iterdir())}\n{output}'
        )
    assert process.returncode == 0, output[-6000:]


@pytest.mark.slow
@pytest.mark.parametrize('groups', [1, 3])
def test_two_processes_give_the_gradients_of_one_with_twice_the_batch(tmp_path, source_environment, groups):
    run(sys.executable, WORKER, tmp_path / 'one.pth', 'none', groups, environment=source_environment)
    run(*TORCHRUN, WORKER, tmp_path / 'two.pth', 'pytorch', groups, environment=source_environment)
    one, two = torch.load(tmp_path / 'one.pth'), torch.load(tmp_path / 'two.pth')
    assert (one['world_size'], one['wrapped']) == (1, False)
    assert (two['world_size'], two['wrapped']) == (2, True)
    assert one['gradients'].keys() == two['gradients'].keys()
    for name, expected in one['gradients'].items():
        difference, size = (two['gradients'][name] - expected).norm(), expected.norm()
        assert difference <= 1e-4 * size + 1e-6, f'{name}: {difference:.3g} of {size:.3g}'


@NO_CUDA
def test_only_torchs_launcher_works_without_cuda():
    with pytest.raises(UserError, match="without CUDA only 'none' and 'pytorch'"):
        launch.start_without_cuda('slurm')


@NO_CUDA
def test_a_process_that_no_launcher_started_is_told_how(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match='torchrun --nproc_per_node=2'):
        launch.start_without_cuda('pytorch')


@NO_CUDA
def test_one_process_needs_neither_group_nor_wrapper():
    config = Config(dict(launcher='none'))
    launch.prepare_processes(config)
    assert not torch.distributed.is_initialized()
    assert 'model_wrapper_cfg' not in config


@NO_CUDA
def test_the_wrapper_keeps_what_the_config_asks_for_but_the_gpu():
    config = Config(dict(launcher='pytorch', model_wrapper_cfg=dict(find_unused_parameters=True, device_ids=[0])))
    launch.wrap_without_cuda(config)
    assert config.model_wrapper_cfg.type == 'MMDistributedDataParallel'
    assert config.model_wrapper_cfg.find_unused_parameters is True
    assert config.model_wrapper_cfg.device_ids is None


HELD = """
import time
from torch import distributed
from mmcondetr.engine import launching
launching.MARGIN = 0.5
distributed.init_process_group = lambda *args, **options: time.sleep(60)
launching.start_without_cuda('pytorch', 0.5)
"""


@NO_CUDA
def test_a_process_that_gloo_holds_beyond_the_timeout_ends_with_one_line(source_environment):
    place = dict(RANK='0', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT='1')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', HELD],
        env={**source_environment, **place},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 2
    assert 'error (process 0): --launcher pytorch: not all of 2 processes connected' in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_process_group_that_was_left_is_not_freed_with_the_model(source_environment):
    """Its destructor joins gloo's threads while it holds the lock for which one of them may wait: a rare deadlock."""
    code = """
from pathlib import Path
import torch
from torch import distributed, nn
from mmcondetr.engine.launching import stop

def gloos_threads():
    return sum('gloo_run' in path.read_text() for path in Path('/proc/self/task').glob('*/comm'))

distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
model = nn.parallel.DistributedDataParallel(nn.Linear(3, 3))
model(torch.rand(8, 3)).sum().backward()
before = gloos_threads()
stop()
del model
print(before, gloos_threads(), distributed.is_initialized())
"""
    output = subprocess.run(
        [sys.executable, '-c', code], env=source_environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    before, after, joined = output.split()
    assert int(before) == int(after) > 0, output
    assert joined == 'False'
