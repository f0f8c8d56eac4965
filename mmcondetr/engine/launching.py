"""Several processes without CUDA: starts gloo, where mmengine would start NCCL and pin each model to a GPU."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import distributed

from mmcondetr.errors import UserError
from mmcondetr.terminal import say

TIMEOUT = 600
"""Default of ``env_cfg.dist_cfg.timeout``, the seconds that a process waits for the others. The longest evaluation,
which one process does alone, must fit in."""

MARGIN = 5
"""Seconds after the timeout in which gloo may report by itself that processes did not connect."""

_CAUSE = 'mmcondetr/first cause'

_LEFT = []
"""The process groups that were left, kept until the interpreter ends.

gloo's destructor waits for its threads while it holds Python's global lock. One of them may be waiting for that lock,
to release what a step has left, so the last reference must not go where a model is freed right after a step."""


def start_without_cuda(launcher: str, timeout: float = TIMEOUT) -> bool:
    """Start gloo if ``launcher`` requests several processes and there is no accelerator.

    mmengine then finds a process group and starts none. Returns whether it was started. No process waits longer than
    ``timeout`` seconds for another, now or in any step.

    Raises:
        UserError: The launcher does not work without CUDA, or it was not used to start this process.
    """
    if launcher == 'none' or get_device() != 'cpu' or distributed.is_initialized():
        return False
    if launcher != 'pytorch':
        raise UserError(f"--launcher {launcher}: without CUDA only 'none' and 'pytorch' work.")
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher pytorch: the environment lacks {", ".join(missing)}. Start the command with '
            '"torchrun --nproc_per_node=2 tools/train.py ... --launcher pytorch", or with "mim train ... '
            '--launcher pytorch -G 2".'
        )
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < 10**7:
        raise UserError(f'env_cfg.dist_cfg.timeout: must be a number of seconds above 0, not {timeout!r}.')
    rank, processes = os.environ['RANK'], os.environ['WORLD_SIZE']
    say(
        f'process {rank} of {processes}: waits for the others, here and in each step, at most {timeout:g} s '
        '(env_cfg.dist_cfg.timeout)',
    )
    problem = (
        f'--launcher pytorch: not all of {processes} processes connected to {os.environ["MASTER_ADDR"]}:'
        f'{os.environ["MASTER_PORT"]} within {timeout:g} s. See the output of the others for the reason.'
    )
    try:
        with _ended_after(timeout + MARGIN, f'error (process {rank}): {problem}'):
            distributed.init_process_group('gloo', timeout=timedelta(seconds=timeout))
    except RuntimeError as error:
        raise UserError(problem) from error
    return True


@contextmanager
def _ended_after(seconds: float, message: str) -> Iterator[None]:
    """End this process if the block takes longer: gloo, while it connects, waits for each neighbour in turn."""

    def end() -> None:
        say(message, file=sys.stderr)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def wrap_without_cuda(config: Config) -> None:
    """Set the data-parallel wrapper of ``config`` up for the CPU: mmengine's has a GPU in ``device_ids``."""
    if config.get('launcher', 'none') == 'none' or get_device() != 'cpu':
        return
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=config.get('find_unused_parameters', False),
    )
    wrapper.update(config.get('model_wrapper_cfg') or {})
    wrapper['device_ids'] = None
    config.model_wrapper_cfg = wrapper


def prepare_processes(config: Config) -> None:
    """Call before building a Runner from ``config``; does nothing with CUDA or with a single process."""
    join(config)
    wrap_without_cuda(config)


def join(config: Config) -> None:
    """Only call :func:`start_without_cuda`, with the config's timeout."""
    settings = (config.get('env_cfg') or {}).get('dist_cfg') or {}
    start_without_cuda(config.get('launcher', 'none'), settings.get('timeout', TIMEOUT))


def stop() -> None:
    """Leave the process group, if there is one, so that torch does not warn at exit."""
    if torch.distributed.is_available() and distributed.is_initialized():
        _LEFT.append(distributed.group.WORLD)
        distributed.destroy_process_group()


def _store() -> distributed.Store | None:
    """The store that all processes can read and write; None if there is only one process."""
    if not torch.distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return None
    return distributed.distributed_c10d._get_default_store()


def tell_others(cause: str) -> None:
    """Store why this process ends, for the processes that lose it, and leave the process group."""
    store = _store()
    if store is None:
        return
    rank = distributed.get_rank()
    try:
        if not store.check([_CAUSE]):
            store.set(_CAUSE, f'process {rank}: {cause}')
    except RuntimeError:  # the store has ended with its process
        return
    stop()
    if rank == 0:
        time.sleep(2)  # the store is in this process: give the others time to read it


def is_lost_process(error: Exception) -> bool:
    """Whether an error was caused by another process that has ended or does not respond."""
    return (
        _store() is not None
        and isinstance(error, RuntimeError)
        and any(
            text in str(error)
            for text in ('gloo', 'NCCL', 'Connection closed by peer', 'Connection reset', 'Timed out', 'store')
        )
    )


def first_cause(error: Exception) -> str:
    """The stored message of the process that ended first, or that it left none."""
    try:
        store = _store()
        if store is not None and store.check([_CAUSE]):
            return store.get(_CAUSE).decode(errors='replace')
    except RuntimeError:
        pass
    reason = ' '.join(str(error).split())
    if 'imed out' in reason or 'timeout' in reason.lower():
        return 'another process did not respond in time (env_cfg.dist_cfg.timeout); it hangs, or was stopped'
    return 'another process has ended: if it printed nothing, it was killed (by the system, if memory ran out)'
