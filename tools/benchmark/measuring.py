"""Starts one worker per entry and lets them take turns, step by step, so that all see the same machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tools.benchmark.workload import EXPORTED, Workload

PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class BenchmarkError(RuntimeError):
    """An entry failed; the message ends with what it printed last."""


class Killed(BenchmarkError):
    """A worker was killed, for example by the system when out of memory; the others continue."""


class WorkerProcess:
    """A worker process.

    Args:
        workload: what it does.
        python: the interpreter to run it with; None for the current one.
    """

    def __init__(self, workload: Workload, python: str | None = None) -> None:
        self.workload = workload
        self.errors = tempfile.TemporaryFile('w+')
        paths = [str(PACKAGE_ROOT), os.environ.get('PYTHONPATH', '')]
        environment = {
            **os.environ,
            'PYTHONPATH': os.pathsep.join(filter(None, paths)),
            'OMP_NUM_THREADS': str(workload.threads),
            'MKL_NUM_THREADS': str(workload.threads),
        }
        worker = 'exported_worker' if workload.implementation in EXPORTED else 'worker'
        self.process = subprocess.Popen(
            [python or sys.executable, '-m', f'tools.benchmark.{worker}'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )
        self.unavailable, self.versions = None, {}
        self._send(workload.asdict())

    def wait_until_ready(self) -> None:
        """Wait for the model to be built, or note what is missing in ``unavailable``."""
        try:
            reply = self._receive()
        except Killed as error:
            reply = dict(unavailable=str(error))
        self.unavailable, self.versions = reply.get('unavailable'), reply.get('versions', {})

    def ask(self, **message: object) -> dict:
        """Send a command and wait for the reply."""
        self._send(message)
        return self._receive()

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.errors.close()

    def _send(self, message: dict) -> None:
        with suppress(BrokenPipeError):  # a worker that has ended: _receive reports why
            self.process.stdin.write(json.dumps(message) + '\n')
            self.process.stdin.flush()

    def _receive(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            if self.process.returncode == -signal.SIGKILL:
                raise Killed('killed, as happens when the system runs out of memory')
            self.errors.seek(0)
            last = '\n'.join(self.errors.read().splitlines()[-15:])
            raise BenchmarkError(f'{self.workload}: the worker ended with code {self.process.returncode}:\n{last}')
        return json.loads(line)


def _leave_out(record: dict, why: str, say: Callable[[str], None]) -> None:
    for field in ('seconds', 'memory', 'split'):
        record.pop(field, None)
    record['unavailable'] = why
    say(f'  {record["workload"]["implementation"]}: not measured, {why}')


def measure(
    workloads: Iterable[Workload],
    repeats: int,
    warm_up: int = 1,
    split: bool = False,
    pythons: dict[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> list[dict]:
    """Measure entries in turn: one step of each, then the next step of each.

    Args:
        workloads: one per entry.
        repeats: measured steps of each.
        warm_up: steps of each that are not measured.
        split: also measure as many steps by part.
        pythons: implementation -> interpreter, for those that do not use the current one.
        say: receives progress messages.

    Returns:
        One record per entry: ``workload``, and either ``unavailable`` (why) or ``versions``, ``seconds`` (of each
        step), ``memory`` (peak and before the first step, bytes) and, with ``split``, ``split`` (seconds by part, each
        step).

    Raises:
        BenchmarkError: an entry failed.
    """
    workers: list[WorkerProcess] = []
    try:
        for workload in workloads:  # one after the other: building together would need the memory of all
            workers.append(WorkerProcess(workload, (pythons or {}).get(workload.implementation)))
            workers[-1].wait_until_ready()
        return _take_turns(workers, repeats, warm_up, split, say)
    finally:
        for worker in workers:
            worker.close()


def _take_turns(
    workers: list[WorkerProcess], repeats: int, warm_up: int, split: bool, say: Callable[[str], None]
) -> list[dict]:
    """The records of workers that are ready; one that is killed on the way is left out."""
    records = [dict(workload=worker.workload.asdict(), seconds=[]) for worker in workers]
    running = []
    for worker, record in zip(workers, records):
        if worker.unavailable:
            _leave_out(record, worker.unavailable, say)
        else:
            record['versions'] = worker.versions
            running.append((worker, record))

    def ask_all(**message: object) -> Iterator[tuple[dict, dict]]:
        for worker, record in list(running):
            try:
                yield record, worker.ask(**message)
            except Killed as error:
                running.remove((worker, record))
                _leave_out(record, str(error), say)

    for repeat in range(warm_up + repeats):
        for record, reply in ask_all(do='step'):
            say(
                f'  {record["workload"]["implementation"]:22s} {reply["seconds"]:8.3f} s'
                f'{" (warm-up)" * (repeat < warm_up)}'
            )
            if repeat >= warm_up:
                record['seconds'].append(reply['seconds'])
    for record, reply in ask_all(do='memory'):
        record['memory'] = reply
    for _ in range(repeats if split else 0):
        for record, reply in ask_all(do='split'):
            record.setdefault('split', []).append(reply)
    return records
