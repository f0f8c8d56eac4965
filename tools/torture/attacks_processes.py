"""Processes: killed and interrupted, on a disk that is full or read-only, several at once, and for a long time."""

from __future__ import annotations

import faulthandler
import itertools
import os
import random
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tools.torture.attempts import Attempt, DataLost, Hung, Silent, start, wait, wait_for
from tools.torture.ground import Ground, command, read_checkpoint


def _check_checkpoints(work: Path) -> list[Path]:
    """All checkpoints of a folder; raises :class:`DataLost` if one cannot be read or the last is missing."""
    found = sorted(work.glob('*.pth'))
    for path in found:
        try:
            read_checkpoint(path)['state_dict']
        except Exception as error:
            raise DataLost(f'{path.name} cannot be read: {error}') from error
    last = work / 'last_checkpoint'
    if last.exists() and not Path(last.read_text().strip()).exists():
        raise DataLost(f'last_checkpoint names {last.read_text()}, which is not there')
    return found


def _train_to_end(ground: Ground, work: Path) -> int:
    code = command('train', ground.config, '--work-dir', work, '--resume')
    if code == 0:
        expected = read_checkpoint(ground.folder / 'good' / 'epoch_2.pth')['state_dict']
        found = read_checkpoint(work / 'epoch_2.pth')['state_dict']
        if any(str(found[name]) != str(value) for name, value in expected.items()):
            raise Silent('the weights at the end are not those of an unbroken run')
    return code


def kills(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """SIGKILL, SIGTERM and SIGINT at random moments of a training, which is then resumed to its end, bit for bit."""
    length = _time_of_training(ground)
    number = 0
    while True:
        kind = choice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        moment = choice.uniform(0, length)
        work = ground.new(f'kills/{number % 4}')
        number += 1

        def run(kind: signal.Signals = kind, moment: float = moment, work: Path = work) -> int:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            output = os.open(work / 'killed.txt', os.O_CREAT | os.O_RDWR)
            inner = Attempt('inner', lambda: command('train', ground.config, '--work-dir', work))
            process = start(inner, output)
            time.sleep(moment)
            try:
                os.kill(process, kind)
            except ProcessLookupError:
                pass
            status = wait(process, 60)
            if status is None:
                raise Hung(f'{kind.name} did not end it within a minute')
            text = (work / 'killed.txt').read_text(errors='replace')
            if kind != signal.SIGKILL and 'Traceback (most recent call last)' in text:
                print(text[-1500:])
                return 1
            before = len(_check_checkpoints(work))
            code = _train_to_end(ground, work)
            print(f'{before} checkpoints were there')
            return code

        yield Attempt(
            f'{kind.name} after {moment:.2f} s of {length:.2f}', run, seconds=600, check=lambda w=work: _checked(w)
        )


def _checked(work: Path) -> None:
    _check_checkpoints(work)


def _time_of_training(ground: Ground) -> float:
    work = ground.new('kills-time')
    started = time.monotonic()
    output = os.open(work / 'log.txt', os.O_CREAT | os.O_RDWR)
    wait(start(Attempt('timed', lambda: command('train', ground.config, '--work-dir', work)), output), 300)
    os.close(output)
    return time.monotonic() - started


def _mounted(folder: Path, *options: str) -> bool:
    """Mount a small file system in memory; returns False if that is not allowed."""
    call = ['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', str(folder)]
    return subprocess.run(call, capture_output=True).returncode == 0


def disk(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Limited file sizes, a full disk, a read-only one: existing files must stay valid."""
    size = ground.checkpoint.stat().st_size
    number = 0
    for kind in ('read-only', 'a file in its place', 'no such device', 'full at once'):
        yield _broken_disk(ground, kind)
    while True:
        # Less would cut off what the attempt prints, which goes to a file, too.
        limit = choice.randrange(4096, 2 * size) if choice.random() < 0.7 else choice.randrange(4096, 16384)
        work = ground.new(f'disk/{number % 3}')
        number += 1
        if choice.random() < 0.5:
            yield _full_disk(ground, work, size, choice.uniform(1.1, 4))
            continue

        def run(limit: int = limit, work: Path = work) -> int:
            _start_well(ground, work)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            code = command('train', ground.config, '--work-dir', work, '--resume')
            if code == 0 and limit < size:
                raise Silent('it ended well, and the checkpoint cannot have been written')
            return code

        yield Attempt(
            f'files of at most {limit} bytes, a checkpoint has {size}', run, seconds=90, check=lambda w=work: _kept(w)
        )


def _start_well(ground: Ground, work: Path) -> None:
    """A work directory in its state after the first epoch."""
    work.mkdir(parents=True, exist_ok=True)
    content = ground.checkpoint.read_bytes()
    (work / 'epoch_1.pth').write_bytes(content)
    (work / 'last_checkpoint').write_text(str(work / 'epoch_1.pth'))


def _kept(work: Path) -> None:
    if not any(path.name.startswith('epoch_') for path in _check_checkpoints(work)):
        raise DataLost('the checkpoint of the first epoch is gone')
    leftovers = [path.name for path in work.rglob('.*.tmp')]
    if leftovers:
        raise Silent(f'{leftovers[0]} was left behind')


def _full_disk(ground: Ground, work: Path, size: int, room: float) -> Attempt:
    def run() -> int:
        if not _mounted(work, f'size={int(size * room)}'):
            print('no file system can be mounted here: not tried')
            return 0
        try:
            _start_well(ground, work)
            code = command('train', ground.config, '--work-dir', work, '--resume')
            _kept(work)
            return code
        finally:
            subprocess.run(['umount', '-l', str(work)], capture_output=True)

    return Attempt(f'a disk of {room:.1f} checkpoints', run, seconds=90)


def _broken_disk(ground: Ground, kind: str) -> Attempt:
    work = ground.new('disk/broken')

    def run() -> int:
        target = work / 'inside'
        if kind == 'a file in its place':
            target.write_text('x')
        elif kind == 'no such device':
            target = Path('/proc/mmcondetr')
        else:
            target.mkdir()
            if not _mounted(target, 'ro' if kind == 'read-only' else 'size=4k'):
                print('no file system can be mounted here: not tried')
                return 0
        try:
            code = command('train', ground.config, '--work-dir', target)
        finally:
            if kind in ('read-only', 'full at once'):
                subprocess.run(['umount', '-l', str(target)], capture_output=True)
        if code == 0:
            raise Silent('it ended well, and nothing can have been written')
        return code

    return Attempt(f'work directory: {kind}', run, seconds=60)


PATIENT = 40
"""The setting tried here: seconds that a process waits for the others; 120 s count as hanging."""


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def processes(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Two and four processes: all well, or one that fails before joining, is killed or stopped, or has no data."""
    cases = [(2, 'well'), (2, 'fails first'), (2, 'killed'), (4, 'well'), (2, 'other options'), (4, 'killed')]
    cases += [(2, 'stopped'), (2, 'two trainings in one folder')]
    for world, kind in itertools.chain(cases, iter(lambda: choice.choice(cases), None)):
        work = ground.new('processes')
        yield Attempt(
            f'{world} processes: {kind}',
            lambda world=world, kind=kind, work=work: _together(ground, work, world, kind, choice.uniform(0.5, 8)),
            seconds=1000,  # each of its processes has 120, or more where it works
        )


def _together(ground: Ground, work: Path, world: int, kind: str, moment: float) -> int:
    """Start the ranks and print their output; returns the exit code of the first that fails."""
    port = _free_port()
    alone = kind == 'two trainings in one folder'

    def rank(number: int) -> int:
        if not alone:
            place = dict(RANK=number, LOCAL_RANK=number, WORLD_SIZE=world, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
            os.environ.update({name: str(value) for name, value in place.items()})
        options: tuple[str, ...] = ('default_hooks.checkpoint.interval=1', f'env_cfg.dist_cfg.timeout={PATIENT}')
        if number == 1 and kind == 'fails first':
            options += ('load_from=/no/such/file.pth',)
        if number == 1 and kind == 'other options':
            options += ('train_dataloader.batch_size=2',)
        faulthandler.dump_traceback_later(100)  # one that hangs says where, before it is killed
        launcher = () if alone else ('--launcher', 'pytorch')
        return command('train', ground.config, '--work-dir', work, *launcher, '--cfg-options', *options)

    outputs = [
        os.open(work.parent / f'rank{number}.txt', os.O_CREAT | os.O_RDWR | os.O_TRUNC) for number in range(world)
    ]
    ranks = [start(Attempt(f'rank {n}', lambda n=n: rank(n)), outputs[n]) for n in range(world)]
    if kind in ('killed', 'stopped'):
        time.sleep(moment)
        os.kill(ranks[-1], signal.SIGKILL if kind == 'killed' else signal.SIGSTOP)
    stopped = ranks[-1] if kind == 'stopped' else None
    statuses = wait_for(ranks, 120, stopped)
    waiting = [number for number, process in enumerate(ranks) if process not in statuses and process != stopped]
    texts = [(work.parent / f'rank{number}.txt').read_text(errors='replace') for number in range(world)]
    for number, text in enumerate(texts):
        print(f'--- rank {number}\n{text[-1500:]}')
    if waiting:
        raise Hung(f'process {waiting[0]} of {world} does not end')
    codes = [os.waitstatus_to_exitcode(statuses.get(process, 0)) for process in ranks]
    if kind == 'killed':
        codes = codes[:-1]
    _check_checkpoints(work)
    return next((abs(code) for code in codes if code), 0)


def _resident() -> int:
    """Bytes of memory in use."""
    return int(re.search(r'VmRSS:\s+(\d+)', Path('/proc/self/status').read_text()).group(1)) << 10


def _grown(step, steps: int) -> tuple[float, int, int]:
    """Run ``step`` repeatedly; relative growth of memory after the first fifth, and open files then and at the end."""
    import gc

    for _ in range(max(2, steps // 5)):
        step()
    gc.collect()
    before, files = _resident(), len(os.listdir('/proc/self/fd'))
    for _ in range(steps - steps // 5):
        step()
    gc.collect()
    return _resident() / before - 1, files, len(os.listdir('/proc/self/fd'))


def _judge(kind: str, steps: int, grown: tuple[float, int, int], left: list[str]) -> None:
    growth, before, after = grown
    print(f'{steps} {kind}: memory {growth:+.2%}, open files {before} and {after}, files left {len(left)}')
    if growth > 0.01 and steps >= 1000:  # a short run proves nothing: the allocator is still filling its pools
        raise Silent(f'memory grew by {growth:.2%} over {steps} {kind}')
    if after > before:
        raise Silent(f'{after - before} more files are open after {steps} {kind}')
    if left:
        raise Silent(f'{left[0]} was left in the folder of temporary files')


def soak_attempts(ground: Ground, steps: int) -> Iterator[Attempt]:
    """Many training steps and predictions: memory within 1 %, no additional files open or left."""

    def train() -> None:
        from mmengine.config import Config
        from mmengine.runner import Runner

        import mmcondetr  # noqa: F401

        config = Config.fromfile(ground.config)
        config.work_dir = str(ground.new('soak'))
        config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=10**9, val_interval=10**9)
        config.param_scheduler = []
        config.train_dataloader.sampler = dict(type='mmcondetr.EpochSampler')
        runner = Runner.from_cfg(config)
        loader = runner.build_dataloader(config.train_dataloader)
        model, batches = runner.model, itertools.chain.from_iterable(itertools.repeat(loader))
        wrapper = runner.build_optim_wrapper(config.optim_wrapper)
        temporary = _own_temporary_folder(ground)
        grown = _grown(lambda: model.train_step(next(batches), wrapper), steps)
        _judge('training steps', steps, grown, os.listdir(temporary))

    def predict() -> None:
        import numpy as np

        from mmcondetr import load_detector

        found = load_detector(str(ground.config), str(ground.checkpoint), 'cpu')
        detector = found[0] if isinstance(found, tuple) else found
        from mmdet.apis import inference_detector

        generator = np.random.default_rng(0)
        sizes = [(int(height), int(width)) for height, width in generator.integers(40, 90, (16, 2))]
        pictures = [generator.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]
        temporary, order = _own_temporary_folder(ground), iter(range(10**9))
        grown = _grown(lambda: inference_detector(detector, pictures[next(order) % 16]), steps)
        _judge('predictions', steps, grown, os.listdir(temporary))

    yield Attempt(f'{steps} training steps', train, seconds=1800)
    yield Attempt(f'{steps} predictions', predict, seconds=1800)


def _own_temporary_folder(ground: Ground) -> Path:
    """The folder for temporary files of this process and its children from now on, to find what they leave behind."""
    import tempfile

    folder = ground.new('soak-temporary')
    os.environ['TMPDIR'] = tempfile.tempdir = str(folder)
    return folder
