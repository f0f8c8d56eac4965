"""The target: a tiny detector, its data and checkpoint in one folder, and a folder beside it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from tools.torture.attempts import Attempt, DataLost, carry_out

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests/integration'))

QUICK = """
data = dict(data_root='{data}', generate=dict(num_train=12, num_val=4, image_size=64))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=data)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
custom_hooks = []
"""


@dataclass(frozen=True)
class Ground:
    """Paths under one folder.

    Attributes:
        folder: contains everything; each attempt creates its own folders in it.
        config: of the tiny detector, which trains two epochs of three steps.
        checkpoint: after the first of them, with the state of the training.
        victim: a folder outside of all work directories, which nothing may touch.
        canary: a file that hostile content creates when executed.
    """

    folder: Path
    config: Path
    checkpoint: Path
    victim: Path
    canary: Path

    def new(self, name: str) -> Path:
        """An empty folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def check_victim(self) -> None:
        """Raises :class:`DataLost` if a file beside the work directories is missing or changed."""
        if [path.name for path in self.victim.iterdir()] != ['precious.txt']:
            raise DataLost('something was written beside the work directory, or removed there')
        if (self.victim / 'precious.txt').read_text() != 'precious':
            raise DataLost('a file outside of the work directory was changed')


def command(*arguments: object) -> int:
    """Run ``mmcondetr ARGUMENTS`` in this process; returns the exit code."""
    from mmcondetr.cli import main

    sys.argv = ['mmcondetr']
    return main([str(argument) for argument in arguments])


def prepare(folder: Path) -> Ground:
    """Draw the data and train the detector for its two epochs.

    Raises:
        RuntimeError: that fails, so nothing can be attacked.
    """
    from tiny import write_config

    folder.mkdir(parents=True, exist_ok=True)
    config = write_config(folder, QUICK.format(data=folder / 'shapes'))
    victim = folder / 'beside'
    victim.mkdir(exist_ok=True)
    (victim / 'precious.txt').write_text('precious')
    work = folder / 'good'
    ground = Ground(folder, config, work / 'epoch_1.pth', victim, folder / 'canary')
    result = carry_out(
        Attempt('the good run', lambda: command('train', config, '--work-dir', work), seconds=600), ground.canary
    )
    if result.outcome != 'survived' or not ground.checkpoint.exists():
        raise RuntimeError(f'the tiny detector does not train: {result.outcome}: {result.detail}')
    return ground


def prepare_imports() -> None:
    """Import once what every attempt needs, shared by the forked processes."""
    os.environ.setdefault('MPLBACKEND', 'Agg')
    torch.set_num_threads(1)  # a fork must not wait for threads that it does not have
    import mmcondetr  # noqa: F401  (before anything of mmdet)

    for name in ('mmdet.apis', 'mmdet.models', 'mmdet.evaluation', 'mmengine.runner', 'transformers', 'pycocotools'):
        try:
            __import__(name)
        except ImportError:
            continue
    for name in ('train', 'test', 'convert_checkpoint'):
        __import__(f'mmcondetr.cli.{name}')
    for name in ('mmcondetr.models', 'mmcondetr.datasets', 'mmcondetr.engine', 'mmcondetr.inference'):
        __import__(name)


def read_checkpoint(path: Path) -> dict:
    """Load a checkpoint written here, with PyTorch itself."""
    return torch.load(path, map_location='cpu', weights_only=False)
