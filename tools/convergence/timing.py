"""The time of a training step of several systems, measured in turn on the same batches.

Epochs do not tell what groups of queries or denoising cost. Every system takes a step on the first batch, then every
system on the second, and so on, so that a machine that gets slower or faster affects all of them. The CPU time of one
thread is counted, which other processes disturb least.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from tools.convergence.runs import system_config

WARM_UP = 2  # steps of each system that are not counted


def time_steps(systems: Sequence[str], base: Config, repeats: int = 9) -> dict[str, list[float]]:
    """Seconds of CPU time of each system's training steps, loading of images not included.

    Args:
        systems: names in :data:`tools.convergence.runs.SYSTEMS`.
        base: config of a small Conditional DETR; gives data, optimiser and every size.
        repeats: the number of steps counted.

    Returns:
        System -> the seconds of each step.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    configs = {system: system_config(system, base, 1, seed=0) for system in systems}
    with DefaultScope.overwrite_default_scope('mmdet'):
        models = {system: MODELS.build(config.model) for system, config in configs.items()}
        optimisers = {system: build_optim_wrapper(models[system], configs[system].optim_wrapper) for system in systems}
        loader = base.train_dataloader.to_dict() | dict(num_workers=0, persistent_workers=False)
        loader = Runner.build_dataloader(loader, seed=0)
        seconds: dict[str, list[float]] = {system: [] for system in systems}
        for step, batch in enumerate(_endless(loader)):
            if step == WARM_UP + repeats:
                break
            for system in systems:
                data = copy.deepcopy(batch)  # a training step changes its samples
                start = time.process_time()
                models[system].train()
                models[system].train_step(data, optimisers[system])
                seconds[system].append(time.process_time() - start)
    torch.set_num_threads(before)
    return {system: own[WARM_UP:] for system, own in seconds.items()}


def _endless(loader):
    while True:
        yield from loader
