"""Runs one contestant in a process of its own, so that its memory is its own; it does a step whenever it is asked to.

One JSON object a line on standard input and output: ``{"do": "step"}`` -> ``{"seconds": ...}``, ``{"do": "memory"}`` ->
bytes, ``{"do": "split"}`` -> seconds of one step by part. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from unittest import mock

import torch

import mmcondetr  # noqa: F401  (before anything of mmdet)
from tools.benchmark import environment
from tools.benchmark.implementations import Unavailable, build
from tools.benchmark.workload import Workload


class Worker:
    """One contestant, ready to run.

    Args:
        workload: what it does.
    """

    def __init__(self, workload: Workload) -> None:
        torch.set_num_threads(workload.threads)
        self.workload = workload
        self.cuda = workload.device == 'cuda'
        self.model, self.run = build(workload)
        self.before = self._resident()

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        if self.cuda:
            torch.cuda.synchronize()

    def step(self) -> dict:
        """Run one step and say how long it took."""
        self.synchronize()
        start = time.perf_counter()
        self.run()
        self.synchronize()
        return dict(seconds=time.perf_counter() - start)

    def memory(self) -> dict:
        """The most memory so far, and what was taken before the first step, in bytes."""
        if self.cuda:
            return dict(peak=torch.cuda.max_memory_allocated(), before=self.before)
        return dict(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, before=self.before)

    def _resident(self) -> int:
        if self.cuda:
            return torch.cuda.memory_allocated()
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')

    def split(self) -> dict[str, float]:
        """Run one step and give its seconds by part: backbone, neck, encoder, decoder and head; in training also
        matching and losses ('loss') and 'backward'. What is left is 'rest': in training clipping and AdamW."""
        seconds: dict[str, float] = defaultdict(float)
        training = self.workload.mode == 'training'
        parts = [(getattr(self.model, name), 'forward', name) for name in ('backbone', 'neck', 'encoder', 'decoder')]
        parts.append((self.model.bbox_head, 'forward', 'head'))
        if training:
            parts += [(self.model.bbox_head, 'loss', 'loss'), (torch.Tensor, 'backward', 'backward')]
        with ExitStack() as undo:
            for owner, method, name in parts:
                seconds[name] = 0.0
                undo.enter_context(mock.patch.object(owner, method, self._timed(getattr(owner, method), name, seconds)))
            total = self.step()['seconds']
        if training:
            seconds['loss'] -= seconds['head']  # the head runs inside its loss
        return {**seconds, 'rest': total - sum(seconds.values())}

    def _timed(self, function: Callable, name: str, seconds: dict[str, float]) -> Callable:

        def timed(*args, **kwargs):
            self.synchronize()
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.synchronize()
            seconds[name] += time.perf_counter() - start
            return result

        return timed


def main() -> None:
    """Build what the first line of standard input describes, then obey the lines after it."""
    replies = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no reply

    def reply(message: dict) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        worker = Worker(Workload(**json.loads(sys.stdin.readline())))
    except Unavailable as error:
        reply(dict(unavailable=str(error)))
        return
    reply(dict(ready=True, versions=environment.versions(('torch', 'torchvision', 'transformers', 'timm'))))
    for line in sys.stdin:
        message = json.loads(line)
        reply(getattr(worker, message.pop('do'))(**message))


if __name__ == '__main__':
    main()
