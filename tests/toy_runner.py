"""A runner whose model is one linear layer, for tests of hooks, checkpoints and resuming."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmcondetr.registry import DATA_SAMPLERS


class Numbers(Dataset):
    metainfo = dict(classes=('a', 'b', 'c'))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index)])


class Toy(BaseModel):
    """Draws from every generator in each step, and other numbers of times in validation."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.bbox_head = nn.Linear(1, 1)
        nn.init.ones_(self.bbox_head.weight)
        nn.init.ones_(self.bbox_head.bias)
        self.bbox_head.num_classes = num_classes
        self.drawn: list[tuple] = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode != 'loss':
            torch.rand(3), np.random.rand(3), random.random()
            return list(inputs)
        self.drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))
        return dict(loss=self.bbox_head(torch.stack(list(inputs))).square().mean())


class ScriptedMetric(BaseMetric):
    """Returns the given values, one per evaluation."""

    def __init__(self, values=()) -> None:
        super().__init__()
        self.remaining = list(values)

    def process(self, data_batch, data_samples) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results) -> dict:
        return dict(AP=self.remaining.pop(0))


def collate(items: list) -> dict:
    return dict(inputs=items)


def make_runner(
    work_dir: Path,
    epochs: int = 4,
    model: Toy | None = None,
    measures=(),
    resume: bool = False,
    hooks=(),
    param_scheduler=None,
    loader: dict | None = None,
    **arguments,
) -> Runner:
    """A runner for the toy; ``measures`` asks for validation after each epoch, ``arguments`` are CheckpointHook's.

    ``loader`` are a training loader's settings besides its data.
    """

    def make_loader(batch_size: int = 2, sampler: dict | None = None, **settings) -> DataLoader:
        sampler = sampler and DATA_SAMPLERS.build(sampler, default_args=dict(dataset=Numbers(), seed=1))
        return DataLoader(Numbers(), batch_size, sampler=sampler, collate_fn=collate, **settings)

    validation = (
        dict(val_dataloader=make_loader(), val_cfg=dict(), val_evaluator=[ScriptedMetric(measures)]) if measures else {}
    )
    make_runner.number = getattr(make_runner, 'number', 0) + 1
    return Runner(
        model or Toy(),
        str(work_dir),
        train_dataloader=make_loader(**(loader or {})),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        param_scheduler=param_scheduler,
        resume=resume,
        randomness=dict(seed=1),
        default_hooks=dict(checkpoint=dict(type='mmcondetr.CheckpointHook', interval=1, **arguments)),
        custom_hooks=list(hooks),
        default_scope='mmdet',
        experiment_name=f'test_hooks_{make_runner.number}',
        log_level='ERROR',
        **validation,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())
