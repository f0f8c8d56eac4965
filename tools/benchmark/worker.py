"""Runs an entry that is a PyTorch model, in its own process so that its memory can be measured."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from unittest import mock

import torch

import mmcondetr  # noqa: F401  (before anything of mmdet)
from tools.benchmark import environment
from tools.benchmark.implementations import build
from tools.benchmark.serving import Steps, serve
from tools.benchmark.workload import Workload


class Worker(Steps):
    """A model and its step.

    Args:
        workload: what it does.
    """

    def __init__(self, workload: Workload) -> None:
        torch.set_num_threads(workload.threads)
        self.workload = workload
        self.cuda = workload.device == 'cuda'
        self.model, run = build(workload)
        super().__init__(run)

    def synchronize(self) -> None:
        """Wait until the device has finished."""
        if self.cuda:
            torch.cuda.synchronize()

    def memory(self) -> dict:
        """As for every entry; on a GPU, the memory of the GPU."""
        if self.cuda:
            return dict(peak=torch.cuda.max_memory_allocated(), before=self.before)
        return super().memory()

    def resident(self) -> int:
        """As for every entry; on a GPU, the memory of the GPU."""
        return torch.cuda.memory_allocated() if self.cuda else super().resident()

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


if __name__ == '__main__':
    serve(Worker, lambda: environment.versions(('torch', 'torchvision', 'transformers', 'timm')))
