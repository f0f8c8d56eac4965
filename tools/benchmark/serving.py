"""What a contestant's process does: a step whenever it is asked to. Nothing here needs torch.

One JSON object a line on standard input and output: ``{"do": "step"}`` -> ``{"seconds": ...}``, ``{"do": "memory"}`` ->
bytes, ``{"do": "split"}`` -> seconds of one step by part. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from tools.benchmark.workload import Workload


class Unavailable(Exception):
    """A contestant cannot run here; the message says what is missing."""


class Steps:
    """A contestant, ready to run.

    Args:
        run: does one step.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run
        self.before = self.resident()

    def synchronize(self) -> None:
        """Wait until the device has done everything; on a CPU it has."""

    def step(self) -> dict:
        """Run one step and say how long it took."""
        self.synchronize()
        start = time.perf_counter()
        self.run()
        self.synchronize()
        return dict(seconds=time.perf_counter() - start)

    def memory(self) -> dict:
        """The most memory so far, and what was taken before the first step, in bytes."""
        return dict(peak=_highest(), before=self.before)

    def resident(self) -> int:
        """The process's memory now, in bytes."""
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def _highest() -> int:
    """The most memory that this program had, in bytes; ``getrusage`` would count who started the process, too."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM:'))


def serve(prepare: Callable[[Workload], Steps], versions: Callable[[], dict[str, str]]) -> None:
    """Build what the first line of standard input describes, then obey the lines after it."""
    replies = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no reply

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
