"""Names of classes, files and runs that matplotlib would take for formulas, or that would steer the terminal."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData
from own_data_files import make_shapes, write_yolo
from tiny_files import write_model
from tiny_model import tiny_config

from mmcondetr.checkpoints.source import check_class_names
from mmcondetr.cli import main
from mmcondetr.engine.console import ConsoleHook, ConsoleRunner
from mmcondetr.engine.visualization_hook import VisualizationHook
from mmcondetr.errors import UserError
from mmcondetr.inference import load_detector
from mmcondetr.terminal import printable
from mmcondetr.visualization import draw_comparison
from mmcondetr.visualization.curves import METRIC, Curve, _draw

NO_FORMULA = '$\\frac{$'


@pytest.mark.parametrize('phase', ['val', 'test'])
def test_pictures_of_a_test(tmp_path, phase):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((40, 60, 3), np.uint8))
    found = InstanceData(
        bboxes=torch.tensor([[5.0, 5, 30, 30]]), scores=torch.tensor([0.9]), labels=torch.zeros(1, dtype=torch.long)
    )
    sample = DetDataSample(
        metainfo=dict(img_path=str(tmp_path / 'a.png'), ori_shape=(40, 60)),
        pred_instances=found,
        gt_instances=found[:0],
    )
    visualizer = DetLocalVisualizer.get_instance(
        f'names {phase}', vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path / 'run')
    )
    hook = VisualizationHook(draw=True, interval=1, test_out_dir='drawn')
    visualizer.dataset_meta = dict(classes=(NO_FORMULA,), palette=[(255, 0, 0)])
    runner = SimpleNamespace(work_dir=str(tmp_path), timestamp='run', iter=0)
    getattr(hook, f'after_{phase}_iter')(runner, 0, {}, [sample])
    assert [cv2.imread(str(path)).any() for path in (tmp_path / 'run').rglob('*.png')] == [True]


def test_pictures_of_attention(tmp_path):
    model = load_detector(*write_model(tmp_path, tiny_config()))
    classes = model.dataset_meta['classes']
    model.dataset_meta['classes'] = tuple(NO_FORMULA for _ in classes)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    draw_comparison([(NO_FORMULA, model), ('$x$', model)], pixels, tmp_path / 'a.png', score_threshold=0)
    assert cv2.imread(str(tmp_path / 'a.png')).any()


def test_curves_of_a_run_and_their_numbers():
    figure = Figure()
    axes = figure.subplots()
    _draw(axes, METRIC, [Curve(NO_FORMULA, 'epoch', (1, 2), (0.1, 0.2))])
    figure.draw_without_rendering()
    assert axes.get_legend().get_texts()[0].get_text().startswith(NO_FORMULA)


def test_what_steers_the_terminal_is_shown_as_its_code():
    assert printable('a\x1b[31m\x9b2J\r\x07\ud800\u202eé\n\tb') == 'a\\x1b[31m\\x9b2J\\x0d\\x07\\xd800\\x202eé\n\tb'


def test_the_console_of_a_run(capsys, tmp_path):
    ConsoleHook()._say('classes: \x1b[31mred')
    runner = ConsoleRunner.__new__(ConsoleRunner)  # the logger is the first thing that it builds
    runner._log_dir, runner._timestamp, runner._experiment_name = str(tmp_path), 'now', 'hostile names'
    logger = runner.build_logger()
    (handler,) = (one for one in logger.handlers if type(one) is logging.StreamHandler)
    line = handler.format(logging.LogRecord('x', logging.WARNING, '', 0, "file '\x1b]0;owned\x07'", (), None))
    assert capsys.readouterr().out.startswith('classes: \\x1b[31mred\n')
    assert line == "WARNING: file '\\x1b]0;owned\\x07'"


@pytest.mark.parametrize('key', ['name', 'file_name'])
@pytest.mark.parametrize('name', ['\x1b[31mred', '\ud800'])
def test_check_says_names_that_are_wrong_as_codes(tmp_path, capsys, key, name):
    folder = write_yolo(make_shapes(tmp_path / 'shapes'), tmp_path / 'yolo')
    assert main(['init', str(folder), '--out', str(tmp_path / 'my.py'), '--start', 'small']) == 0
    path = folder / 'coco_train.json'
    content = json.loads(path.read_text())
    content['categories' if key == 'name' else 'images'][0][key] = name
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(['check', str(tmp_path / 'my.py'), '--out', str(tmp_path / 'out')]) == 1
    out, err = capsys.readouterr()
    assert ascii(name[0])[1:-1].replace('u', 'x') in err and name[0] not in out + err
    assert (tmp_path / 'out' / 'data.html').is_file()
    assert main(['train', str(tmp_path / 'my.py'), '--work-dir', str(tmp_path / 'run')]) == 2
    out, err = capsys.readouterr()
    assert err.startswith('error: ') and name[0] not in out + err and 'Traceback' not in err


def test_names_in_a_checkpoint_that_cannot_be_written():
    with pytest.raises(UserError, match="'a.pth': meta.dataset_meta.classes has a name that is no valid Unicode"):
        check_class_names(dict(meta=dict(dataset_meta=dict(classes=['cat', '\ud800']))), 'a.pth')
