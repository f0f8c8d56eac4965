"""Starts one worker a contestant and lets them take turns, step by step, so that all see the same machine."""

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
    """A contestant failed; the message ends with what it printed last."""


class Killed(BenchmarkError):
    """A worker was killed, by the system when out of memory or by hand; the others continue."""


class WorkerProcess:
    """A worker process.

    Args:
        workload: what it does.
        python: the interpreter to run it with, the current one where None.
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
        with suppress(BrokenPipeError):  # a worker that has ended: _receive says why
            self.process.stdin.write(json.dumps(message) + '\n')
            self.process.stdin.flush()

    def _receive(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            if self.process.returncode == -signal.SIGKILL:
                raise Killed('killed, as a system does when its memory is used up')
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
    """Measure contestants in turn: everybody one step, then everybody the next.

    Args:
        workloads: one a contestant.
        repeats: measured steps of each.
        warm_up: steps of each that are not measured.
        split: also measure as many steps by part.
        pythons: interpreters by implementation, where it is not the current one.
        say: told what is going on.

    Returns:
        One record a contestant: ``workload``, and either ``unavailable`` (why) or ``versions``, ``seconds`` (of each
        step), ``memory`` (peak and before the first step, bytes) and, with ``split``, ``split`` (seconds by part, each
        step).

    Raises:
        BenchmarkError: a contestant failed.
    """
    contestants: list[WorkerProcess] = []
    try:
        for workload in workloads:  # one after the other: building at once would need the memory of all at once
            contestants.append(WorkerProcess(workload, (pythons or {}).get(workload.implementation)))
            contestants[-1].wait_until_ready()
        return _take_turns(contestants, repeats, warm_up, split, say)
    finally:
        for contestant in contestants:
            contestant.close()


def _take_turns(
    contestants: list[WorkerProcess], repeats: int, warm_up: int, split: bool, say: Callable[[str], None]
) -> list[dict]:
    """The records of contestants that were waited for; who is killed on the way is left out."""
    records = [dict(workload=contestant.workload.asdict(), seconds=[]) for contestant in contestants]
    running = []
    for contestant, record in zip(contestants, records):
        if contestant.unavailable:
            _leave_out(record, contestant.unavailable, say)
        else:
            record['versions'] = contestant.versions
            running.append((contestant, record))

    def everybody(**message: object) -> Iterator[tuple[dict, dict]]:
        for contestant, record in list(running):
            try:
                yield record, contestant.ask(**message)
            except Killed as error:
                running.remove((contestant, record))
                _leave_out(record, str(error), say)

    for repeat in range(warm_up + repeats):
        for record, reply in everybody(do='step'):
            say(
                f'  {record["workload"]["implementation"]:22s} {reply["seconds"]:8.3f} s'
                f'{" (warm-up)" * (repeat < warm_up)}'
            )
            if repeat >= warm_up:
                record['seconds'].append(reply['seconds'])
    for record, reply in everybody(do='memory'):
        record['memory'] = reply
    for _ in range(repeats if split else 0):
        for record, reply in everybody(do='split'):
            record.setdefault('split', []).append(reply)
    return records
