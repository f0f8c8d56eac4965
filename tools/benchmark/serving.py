"""The loop of a worker process: it runs a step whenever it is asked to. Nothing here needs torch.

One JSON object per line on standard input and output: ``{"do": "step"}`` -> ``{"seconds": ...}``, ``{"do": "memory"}``
-> bytes, ``{"do": "split"}`` -> seconds of one step by part. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from tools.benchmark.workload import Workload


class Unavailable(Exception):
    """An entry cannot run here; the message names what is missing."""


class Steps:
    """An entry, ready to run.

    Args:
        run: does one step.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run
        self.before = self.resident()

    def synchronize(self) -> None:
        """Wait until the device has finished; a CPU always has."""

    def step(self) -> dict:
        """Run one step and return its seconds."""
        self.synchronize()
        start = time.perf_counter()
        self.run()
        self.synchronize()
        return dict(seconds=time.perf_counter() - start)

    def memory(self) -> dict:
        """The most memory so far, and what was in use before the first step, in bytes."""
        return dict(peak=_highest(), before=self.before)

    def resident(self) -> int:
        """The process's memory now, in bytes."""
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def _highest() -> int:
    """The peak memory of this program, in bytes; ``getrusage`` would include the parent process's."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM:'))


def serve(prepare: Callable[[Workload], Steps], versions: Callable[[], dict[str, str]]) -> None:
    """Build what the first line of standard input describes, then answer the lines after it."""
    replies = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # output of libraries must not mix with replies

    def reply(message: dict) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        steps = prepare(Workload(**json.loads(sys.stdin.readline())))
    except Unavailable as error:
        reply(dict(unavailable=str(error)))
        return
    reply(dict(ready=True, versions=versions()))
    for line in sys.stdin:
        message = json.loads(line)
        reply(getattr(steps, message.pop('do'))(**message))
