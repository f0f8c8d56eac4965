"""The metadata of an exported file comes from the config; what cannot be exported is a one-line error."""

import hashlib
import re

import pytest
from mmengine.config import Config
from tiny_files import tiny_detr_config, write_model
from tiny_model import build, tiny_config

from mmcondetr.cli import main
from mmcondetr.errors import UserError
from mmcondetr.export.describing import describe, resize_rule
from mmcondetr.runtime.metadata import Resize

LOAD, PACK = dict(type='mmcondetr.LoadImage'), dict(type='mmdet.PackDetInputs')
RESIZE = dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True)
CLASSES = ('circle', 'triangle', 'square', 'star', 'ring')


def config_with(*pipeline) -> Config:
    return Config(dict(test_dataloader=dict(dataset=dict(pipeline=list(pipeline)))))


@pytest.fixture(scope='module')
def detector():
    model = build(tiny_config())
    model.dataset_meta = dict(classes=CLASSES, palette='random')
    return model


def test_it_is_read_from_config_checkpoint_and_model(detector, tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'weights')
    found = describe(detector, config_with(LOAD, RESIZE, PACK), 'mine', str(tmp_path / 'a.pth'))
    assert found.resize == Resize((1333, 800), True, 'bilinear')
    assert found.checkpoint == 'a.pth' and found.checkpoint_sha256 == hashlib.sha256(b'weights').hexdigest()
    assert found.classes == CLASSES and found.palette == () and found.config == 'mine' and not found.masks
    assert found.max_detections == detector.bbox_head.max_per_img


@pytest.mark.parametrize(
    'pipeline, message',
    [
        ([LOAD, dict(type='mmdet.RandomFlip', prob=0.5), PACK], 'RandomFlip is not one of the transforms'),
        ([LOAD, RESIZE, RESIZE, PACK], 'Resize occurs twice'),
        ([LOAD, dict(type='mmdet.Resize', scale_factor=0.5), PACK], 'Resize must have a scale'),
        ([LOAD, {**RESIZE, 'backend': 'pillow'}, PACK], 'use cv2 to be exported'),
        ([dict(type='LoadImageFromFile', color_type='grayscale'), PACK], 'must read 8-bit colour images'),
    ],
)
def test_what_the_runner_cannot_do_is_named(pipeline, message):
    with pytest.raises(UserError, match=f"Config 'mine': test_dataloader.dataset.pipeline: .*{message}"):
        resize_rule(pipeline, 'mine')


def test_panoptic_annotations_are_no_obstacle():
    assert resize_rule([LOAD, RESIZE, dict(type='mmcondetr.LoadPanoptic'), PACK], 'mine') == resize_rule(
        [LOAD, RESIZE, PACK], 'mine'
    )


def test_too_few_class_names_are_named(detector):
    detector.dataset_meta = dict(classes=CLASSES[:3])
    with pytest.raises(UserError, match='num_classes is 5, and the checkpoint or the data set names 3 classes'):
        describe(detector, config_with(LOAD, PACK), 'mine', 'a.pth')


def test_another_packages_detector_is_refused_first():
    with pytest.raises(UserError, match=r'mmdet\.models\.detectors\.detr\.DETR cannot be exported'):
        describe(build(tiny_detr_config()), config_with(LOAD, PACK), 'mine', 'a.pth')


@pytest.mark.parametrize(
    'options, message',
    [
        (['--out', 'a.xml', '--int8', '{empty}'], "Folder '.*empty' contains no image"),
        (['--out', 'a.xml', '--int8', '{empty}/gone'], 'neither an image nor a folder'),
        (['--out', 'a.onnx', '--int8', '{empty}'], '--int8 works with --format openvino'),
        (['--out', 'a.onnx', '--verify', '{empty}'], "Folder '.*empty' contains no image"),
        (['--out', 'a.onnx', '--verify', '{note}'], "note.jpg' is not an image"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong_before_it_loads_a_model(options, message, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'note.jpg').write_text('hello')
    options = [option.format(empty=tmp_path / 'empty', note=tmp_path / 'note.jpg') for option in options]
    assert main(['export', 'no-config', 'no.pth', *options]) != 0
    output = capsys.readouterr().err.strip()
    assert re.search(message, output) and '\n' not in output


def test_the_command_refuses_another_packages_detector_in_one_line(tmp_path, capsys):
    files = write_model(tmp_path, tiny_detr_config(), 'detr')
    assert main(['export', *files, '--out', str(tmp_path / 'a.onnx')]) != 0
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith('error: mmdet.models.detectors.detr.DETR cannot be exported')
    assert not (tmp_path / 'a.onnx').exists()


def test_the_command_refuses_settings_that_nothing_reads(tmp_path, capsys):
    files = write_model(tmp_path, tiny_config())
    for option, message in (
        ('modell.num_queries=3', "--cfg-options modell.num_queries: the config has no 'modell'"),
        ('model.test_cfg.max_per_img=0.5', 'model.test_cfg.max_per_img: must be a whole number, 1 or more, not 0.5'),
    ):
        assert main(['export', *files, '--out', str(tmp_path / 'a.onnx'), '--cfg-options', option]) == 2
        assert message in capsys.readouterr().err
