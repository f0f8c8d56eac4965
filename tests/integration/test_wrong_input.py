"""Wrong input through the whole of training: one clear error, before training starts where it can be known."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from tiny import write_config

from mmcondetr.checkpoints.files import load_file
from mmcondetr.cli.common import build_runner
from mmcondetr.datasets import generate_shapes
from mmcondetr.errors import NonFiniteLossError, UserError
from mmcondetr.registry import TRANSFORMS

ALONE = """
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2)
"""
_numbers = itertools.count()


@TRANSFORMS.register_module()
class SpoilOnePixel(BaseTransform):
    """Makes a pixel of image 5 NaN, in the second epoch only: every image is loaded once an epoch."""

    def __init__(self) -> None:
        self.seen = 0

    def transform(self, results: dict) -> dict:
        if results['img_path'].endswith('000005.png'):
            self.seen += 1
            if self.seen == 2:
                results['img'] = results['img'].astype('float32')
                results['img'][3, 4] = float('nan')
        return results


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'shapes'
    generate_shapes(root, num_train=40, num_val=8, image_size=64)
    return root


@pytest.fixture
def config(tmp_path, shapes) -> Config:
    """The tiny config on a copy of the data, for tests to spoil."""
    shutil.copytree(shapes, tmp_path / 'shapes')
    config = Config.fromfile(write_config(tmp_path, ALONE))
    config.work_dir = str(tmp_path / 'run')
    config.experiment_name = f'wrong_input_{next(_numbers)}'
    config.log_level = 'ERROR'
    return config


def change_annotations(config: Config, change, split: str = 'train') -> None:
    path = Path(config.train_dataloader.dataset.data_root) / f'annotations/{split}.json'
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def fails(config: Config, message: str, error: type = UserError) -> None:
    """Training must end in the error; no step is done unless the work directory holds a checkpoint."""
    with pytest.raises(error, match=message):
        build_runner(config).train()


def nothing_was_trained(config: Config) -> bool:
    return not list(Path(config.work_dir).glob('*.pth'))


def test_missing_annotation_file(config):
    config.train_dataloader.dataset.ann_file = 'annotations/absent.json'
    fails(config, r'absent.json. does not exist. It comes from train_dataloader.dataset.ann_file in the config')
    assert nothing_was_trained(config)


def test_missing_annotation_file_for_validation(config):
    """Found before training starts, not after the first epochs."""
    config.val_evaluator.ann_file = 'annotations/absent.json'
    fails(config, r'absent.json. does not exist. It comes from val_evaluator/test_evaluator.ann_file')
    assert nothing_was_trained(config)


def test_categories_that_do_not_match(config):
    def rename(data: dict) -> None:
        data['categories'][3]['name'] = 'asterisk'

    change_annotations(config, rename)
    fails(config, 'Not in the file: star. In the file only: asterisk.')
    assert nothing_was_trained(config)


def test_number_of_classes_that_does_not_match(config):
    config.model.bbox_head.num_classes = 80
    fails(config, 'model.bbox_head.num_classes=80, but train_dataloader.dataset.metainfo has 6 classes')
    assert nothing_was_trained(config)


def test_boxes_outside_and_without_area_are_skipped(config):
    def spoil(data: dict) -> None:
        data['annotations'][0]['bbox'] = [64, 0, 5, 5]
        data['annotations'][1]['bbox'] = [3, 3, 0, 5]

    change_annotations(config, spoil)
    config.train_cfg.max_epochs = 1
    with pytest.warns(UserWarning, match=r'2 boxes lie outside their image or have no area .* \(annotation ids 1, 2\)'):
        build_runner(config).train()
    assert (Path(config.work_dir) / 'epoch_1.pth').exists()


def test_missing_image(config):
    (Path(config.train_dataloader.dataset.data_root) / 'train/000007.png').unlink()
    fails(config, r'1 of 40 image files of .*train.json. do not exist: .*000007.png')
    assert nothing_was_trained(config)


def test_truncated_image(config):
    path = Path(config.train_dataloader.dataset.data_root) / 'train/000007.png'
    path.write_bytes(path.read_bytes()[:900])
    fails(config, r"000007.png' \(listed in '.*train.json'\) is truncated: it ends after 900 bytes")


def test_checkpoint_that_does_not_fit(config, tmp_path):
    runner = build_runner(config)
    state = runner.model.state_dict()
    state['decoder.layers.9.norm1.weight'] = state.pop('decoder.norm.weight')
    state['query_embedding.weight'] = torch.zeros(4, 32)
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    config.load_from = str(tmp_path / 'other.pth')
    config.experiment_name += '_again'
    with pytest.raises(UserError) as caught:
        build_runner(config).train()
    names = ('other.pth', 'decoder.layers.9.norm1.weight', 'decoder.norm.weight', 'query_embedding.weight', '(4, 32)')
    assert [name for name in names if name not in str(caught.value)] == []


class Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_checkpoint_that_holds_code(config, tmp_path):
    torch.save(dict(state_dict={}, extra=Code(tmp_path / 'trap')), tmp_path / 'evil.pth')
    config.load_from = str(tmp_path / 'evil.pth')
    fails(config, r"evil.pth' is refused: it asks for '(posix|nt|os).mkdir', which is code")
    assert not (tmp_path / 'trap').exists()


def test_non_finite_loss(config):
    pipeline = config.train_dataloader.dataset.pipeline
    config.train_dataloader.dataset.pipeline = [*pipeline[:-1], dict(type='mmcondetr.SpoilOnePixel'), pipeline[-1]]
    # BatchNorm in training spreads one image's NaN over the batch, so the image with the NaN is named besides.
    fails(
        config,
        r'loss_\w+ of decoder layer \d is (nan|inf) on image .* non-finite pixels: \S*train/000005.png\.',
        NonFiniteLossError,
    )
    work_dir = Path(config.work_dir)
    assert [path.name for path in work_dir.glob('*.pth')] == ['epoch_1.pth']
    kept = load_file(work_dir / 'epoch_1.pth')
    assert kept['meta']['epoch'] == 1 and all(value.isfinite().all() for value in kept['state_dict'].values())
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_1.pth')


def test_one_line_on_the_command_line(run_tool, tmp_path, shapes):
    shutil.copytree(shapes, tmp_path / 'shapes')
    (tmp_path / 'shapes/annotations/train.json').unlink()
    done = run_tool('train', write_config(tmp_path, ALONE), '--work-dir', tmp_path / 'run', cwd=tmp_path)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr and done.stderr.strip().splitlines()[-1].startswith('error: Annotation file')


def heed_interrupts():
    """In the child: a test run that was put into the background hands down that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_interrupted_and_resumed(tmp_path, shapes, root, source_environment):
    """Ctrl-C ends without a traceback; the same command with --resume continues."""
    shutil.copytree(shapes, tmp_path / 'shapes')
    config, work_dir = write_config(tmp_path, ALONE, 'train_cfg = dict(max_epochs=500)'), tmp_path / 'run'
    command = [sys.executable, str(root / 'tools/train.py'), str(config), '--work-dir', str(work_dir)]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=source_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    deadline = time.time() + 120
    while not (work_dir / 'last_checkpoint').exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and 'Traceback' not in errors and '--resume' in errors
    before = load_file((work_dir / 'last_checkpoint').read_text())['meta']['epoch']
    assert before < 500
    done = subprocess.run(
        [*command, '--resume', '--cfg-options', f'train_cfg.max_epochs={before + 1}'],
        cwd=tmp_path,
        env=source_environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f'resumes   after epoch {before} of {before + 1}' in done.stdout
    assert load_file(work_dir / f'epoch_{before + 1}.pth')['meta']['epoch'] == before + 1
