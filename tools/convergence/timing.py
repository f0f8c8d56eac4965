"""The time of a training step of several systems, measured in turn.

Epochs do not tell what groups of queries or denoising cost. Every system takes its first step, then every system its
second, and so on, on the same batches where their batches are of one size, so that a machine that gets slower or faster
affects all of them. The CPU time of one thread is counted, which other processes disturb least.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from tools.convergence.runs import system_config

WARM_UP = 2  # steps of each system that are not counted


def time_steps(systems: Mapping[str, tuple[str, Config]], repeats: int = 9) -> dict[str, list[float]]:
    """Seconds of CPU time of each system's training steps, loading of images not included.

    Args:
        systems: by the name in the result, a system (:data:`tools.convergence.runs.SYSTEMS`) and its base, the config
            of a small Conditional DETR that gives data, optimiser and every size.
        repeats: the number of steps counted.

    Returns:
        Name -> the seconds of each step.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    configs = {name: system_config(system, base, 1, seed=0) for name, (system, base) in systems.items()}
    with DefaultScope.overwrite_default_scope('mmdet'):
        models = {name: MODELS.build(config.model) for name, config in configs.items()}
        optimisers = {name: build_optim_wrapper(models[name], configs[name].optim_wrapper) for name in systems}
        batches = {name: _batches(base) for name, (_, base) in systems.items()}
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        for _ in range(WARM_UP + repeats):
            for name, model in models.items():
                data = next(batches[name])
                start = time.process_time()
                model.train()
                model.train_step(data, optimisers[name])
                seconds[name].append(time.process_time() - start)
    torch.set_num_threads(before)
    return {name: own[WARM_UP:] for name, own in seconds.items()}


def _batches(base: Config) -> Iterator[dict]:
    """A base's training batches, the same for all of its systems, without end."""
    loader = base.train_dataloader.to_dict() | dict(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(loader, seed=0)
    while True:
        yield from loader
