"""A run's console output: few lines, the error last; the log has everything. Boxes in its pictures are clipped."""

import re

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image
from tiny import write_config

from mmcondetr.cli import main
from mmcondetr.engine.visualization_hook import clipped

ALONE = """
train_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=2)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
data = dict(generate=dict(num_train=4, num_val=2, image_size=64))
train_dataloader.update(dataset=data)
val_dataloader.update(dataset=data)
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'), logger=dict(interval=2))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('console')


@pytest.fixture(scope='module')
def config(folder):
    return str(write_config(folder, ALONE))


@pytest.fixture(scope='module')
def output(config, folder):
    """What training for two epochs of two iterations prints."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(['train', config, '--work-dir', str(folder / 'run')]) == 0
    return out.getvalue()


def log_of(folder):
    (path,) = folder.glob('*/*.log')
    return path.read_text()


def test_few_lines_say_what_where_and_with_what(output):
    assert len(output.splitlines()) <= 14 and max(map(len, output.splitlines())) < 300
    for line in (
        r'config    \S*tiny-0\.py',
        r'writes    \S*run; the whole log is \S*\.log',
        r'data      train 4 images, val 2 images; 6 classes: circle, triangle, square, star, cross, ring',
        r'model     ConditionalDETR, 0\.\d million parameters, 0\.\d trainable',
        r'on        \w',
        r'training  2 epochs of 2 iterations with 2 images; a line every 2 iterations',
        r'\[#{10}\.{10}\]  50%  epoch 1/2, iteration 2/2  loss \d+\.?\d*  \d+\.\d\d s each .* \d:\d\d:\d\d left',
        r'\[#{20}\] 100%  epoch 2/2, iteration 2/2  loss ',
        r'validation after epoch 1 of 2: coco/bbox_mAP: \d\.\d{4} .* kept as best_coco_bbox_mAP_epoch_1.pth',
        r'trained in 0:00:\d\d: \S*epoch_2\.pth',
        r'next      mmcondetr analyze \S*tiny-0\.py \S*run',
    ):
        assert re.search(f'^{line}', output, re.M), line
    assert 'creating index' not in output and 'Hooks will be executed' not in output


def test_the_log_has_everything(output, folder):
    log = log_of(folder / 'run')
    for words in ('Hooks will be executed', 'System environment', 'num_queries', 'Epoch(train) [2][2/2]', 'bbox_mAP_s'):
        assert words in log


def test_a_finished_run_that_is_resumed_says_so(output, config, folder, capsys):
    changed = (folder / 'run' / 'epoch_2.pth').stat().st_mtime_ns
    assert main(['train', config, '--work-dir', str(folder / 'run'), '--resume']) == 0
    out = capsys.readouterr().out
    assert 'nothing to train: the run is finished, at epoch 2 of 2. --cfg-options max_epochs=N' in out
    assert 'trained in' not in out and (folder / 'run' / 'epoch_2.pth').stat().st_mtime_ns == changed
    options = ['--resume', '--cfg-options', 'max_epochs=3']
    assert main(['train', config, '--work-dir', str(folder / 'run'), *options]) == 0
    out = capsys.readouterr().out
    assert 'resumes   after epoch 2 of 3' in out and 'epoch 3/3' in out
    assert 'Loads checkpoint' not in out


def test_a_test_says_what_was_tested_and_draws_it(output, config, folder, capsys):
    options = ['--work-dir', str(folder / 'tested'), '--show-dir', 'drawn']
    best = next((folder / 'run').glob('best_*.pth'))
    assert main(['test', config, str(folder / 'run'), *options]) == 0
    out = capsys.readouterr().out
    assert re.search(rf'model .* from \S*{best.name}', out) and re.search('tested in .* coco/bbox_mAP: ', out)
    assert 'batches   of 8: an image that is padded' in out and '--batch-size 8 puts only' in out
    pictures = list((folder / 'tested').glob('*/drawn/*.png'))
    assert {Image.open(path).size for path in pictures} == {(128, 64)}  # truth beside prediction


def test_a_test_in_batches_of_one_shape(output, config, folder, capsys):
    options = ['--work-dir', str(folder / 'batches'), '--batch-size', '2']
    assert main(['test', config, str(folder / 'run'), *options]) == 0
    out = capsys.readouterr().out
    assert 'tested in ' in out and 'padded' not in out


def test_the_whole_log_can_be_asked_for(output, config, folder, capsys):
    assert main(['test', config, str(folder / 'run'), '--work-dir', str(folder / 'verbose'), '--verbose']) == 0
    assert 'Hooks will be executed' in capsys.readouterr().out


def test_boxes_are_clipped_in_pictures_and_not_in_the_evaluation():
    boxes = torch.tensor([[-5.0, 3.0, 70.0, 50.0], [1.0, 2.0, 3.0, 4.0]])
    instances = InstanceData(bboxes=boxes.clone(), scores=torch.ones(2), labels=torch.zeros(2))
    sample = DetDataSample(metainfo=dict(ori_shape=(48, 64)), pred_instances=instances)
    assert clipped(sample).pred_instances.bboxes.tolist() == [[0, 3, 64, 48], [1, 2, 3, 4]]
    assert sample.pred_instances.bboxes.equal(boxes)  # which is what the evaluation gets
