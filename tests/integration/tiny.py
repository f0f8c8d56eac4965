"""A Conditional DETR so small that it trains for six epochs in seconds, on shapes, as a config and as a process."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
_base_ = ['{root}/configs/_base_/datasets/shapes_detection.py', '{root}/configs/_base_/default_runtime.py']
model = dict(
    type='mmcondetr.ConditionalDETR', num_queries=8,
    data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=1),
    backbone=dict(type='mmdet.ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(3,), frozen_stages=-1,
                  norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, style='pytorch', init_cfg=None),
    neck=dict(type='mmdet.ChannelMapper', in_channels=[64], kernel_size=1, out_channels=32, act_cfg=None, norm_cfg=None,
              num_outs=1),
    positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=16, normalize=True),
    encoder=dict(type='mmcondetr.TransformerEncoder', num_layers=1,
                 layer=dict(type='mmcondetr.TransformerEncoderLayer', embed_dims=32, num_heads=4,
                            feedforward_channels=64, dropout=0.1)),
    decoder=dict(type='mmcondetr.ConditionalDecoder', num_layers=2,
                 layer=dict(type='mmcondetr.ConditionalDecoderLayer', embed_dims=32, num_heads=4,
                            feedforward_channels=64, dropout=0.1),
                 reference_point=dict(type='mmcondetr.ReferencePoint', embed_dims=32),
                 spatial_query=dict(type='mmcondetr.ConditionalSpatialQueryHead', embed_dims=32, num_heads=4)),
    bbox_head=dict(type='mmcondetr.ConditionalDETRHead', num_classes=6, embed_dims=32,
                   loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
                   loss_bbox=dict(type='mmdet.L1Loss', loss_weight=5.0),
                   loss_iou=dict(type='mmdet.GIoULoss', loss_weight=2.0)),
    train_cfg=dict(assigner=dict(type='mmcondetr.HungarianMatcher', class_cost=2.0, bbox_cost=5.0, giou_cost=2.0)),
    test_cfg=dict(max_per_img=100))
data = dict(data_root='{data}', generate=dict(num_train=40, num_val=8, image_size=64))
train_dataloader = dict(batch_size=8, dataset=data)
val_dataloader = dict(batch_size=8, dataset=data)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/annotations/val.json')
test_evaluator = val_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [dict(type='MultiStepLR', begin=0, end=6, by_epoch=True, milestones=[4], gamma=0.1)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=6, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=5)
"""

PROGRAM = """
import sys
import mmcondetr
from mmengine.config import Config
from mmengine.runner import Runner
config = Config.fromfile(sys.argv[1])
config.work_dir = sys.argv[2]
config.resume = sys.argv[3] == 'resume'
getattr(Runner.from_cfg(config), sys.argv[4])()
"""


def write_config(folder: Path, *changes: str) -> Path:
    """Write the config, which draws its data to ``folder``/shapes; each change is a config on top of the former."""
    path = folder / 'tiny.py'
    path.write_text(CONFIG.format(root=ROOT, data=folder / 'shapes'))
    for number, change in enumerate(changes):
        base, path = path, folder / f'tiny-{number}.py'
        path.write_text(f"_base_ = './{base.name}'\n{change}")
    return path


FORKS = multiprocessing.get_context('forkserver')
"""Starts processes in an instant: each is a fork of a server that has imported these modules, and done nothing else."""
FORKS.set_forkserver_preload(
    ['torch._dynamo', 'mmcondetr', 'mmengine.runner', 'mmdet.models', 'mmdet.datasets', 'mmdet.evaluation']
)


def start(
    config: Path, work_dir: Path, mode: str = 'fresh', task: str = 'train', program: str = PROGRAM
) -> multiprocessing.Process:
    """Run a config in a process of its own, which leads a group; its output goes to ``work_dir``.log."""
    return _start(program, [str(config), str(work_dir), mode, task], work_dir.with_suffix('.log'))


TOOL = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"


def start_tool(name: str, *arguments: object, log: Path) -> multiprocessing.Process:
    """Run ``tools/<name>.py`` in such a process; its output goes to ``log``."""
    return _start(TOOL, [str(ROOT / 'tools' / f'{name}.py'), *map(str, arguments)], log)


def _start(program: str, arguments: list[str], log: Path) -> multiprocessing.Process:
    process = FORKS.Process(target=_run, args=(program, arguments, log, dict(os.environ)))
    process.start()
    return process


def _run(program: str, arguments: list[str], log: Path, environment: dict) -> None:
    """In the new process: the same as ``python -c program arguments``, with random numbers that nothing determines."""
    import numpy as np
    import torch
    from mmengine.runner import loops

    os.setsid()
    with open(log, 'ab') as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ.update(environment)
    torch.set_num_threads(1)
    random.seed()
    np.random.seed()
    torch.seed()
    loops.time = SimpleNamespace(sleep=lambda seconds: None)  # it sleeps for two seconds after each pass
    sys.argv[1:] = arguments
    exec(compile(program, 'program', 'exec'), {'__name__': '__main__'})


def finish(process: multiprocessing.Process, work_dir: Path) -> str:
    """Wait for a process that must succeed; returns its output."""
    process.join(timeout=300)
    output = work_dir.with_suffix('.log').read_text()
    assert process.exitcode == 0, output[-3000:]
    return output
