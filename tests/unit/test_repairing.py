"""Repairing an annotation file removes what examine() reported and leaves the rest unchanged."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
from annotation_data import CLASSES, from_xywh, make

from mmcondetr.cli import main
from mmcondetr.datasets.annotations import examine
from mmcondetr.datasets.box_formats import FORMATS


@pytest.fixture
def spoiled(tmp_path):
    def write(data: dict) -> str:
        path = tmp_path / 'train.json'
        path.write_text(json.dumps(dict(data, info=dict(year=2026))))
        return str(path)

    return write


def suggested(path: str) -> list[str]:
    """The arguments of the command that the error names."""
    (error,) = examine(path, CLASSES, folder=os.path.dirname(path)).errors
    return error.message.split("'mmcondetr ")[1].split("'")[0].split()


@pytest.mark.parametrize('form', FORMATS)
def test_the_suggested_command_repairs_the_boxes(spoiled, tmp_path, capsys, form):
    data = make()
    boxes = np.array([entry['bbox'] for entry in data['annotations']])
    for entry, box in zip(
        data['annotations'], from_xywh(boxes, np.full((len(boxes), 2), (640.0, 480.0)), form).tolist()
    ):
        entry['bbox'] = box
        entry['area'] = 1.0
    data['annotations'][0]['segmentation'] = [[1, 1, 2, 2, 3, 1]]
    if form == 'yxhw':  # or the sizes could be swapped
        write_images(data, tmp_path)
    path = spoiled(data)
    assert main(suggested(path)) == 0
    assert '60 boxes converted' in capsys.readouterr().out
    repaired = json.loads((tmp_path / 'train_fixed.json').read_text())
    assert examine(str(tmp_path / 'train_fixed.json'), CLASSES).findings == []
    np.testing.assert_allclose([entry['bbox'] for entry in repaired['annotations']], boxes, rtol=0, atol=1e-3)
    areas = [entry['area'] for entry in repaired['annotations']]
    assert areas[0] == 1.0, "a segmentation's area is not the box's"
    np.testing.assert_allclose(areas[1:], boxes[1:, 2] * boxes[1:, 3], rtol=1e-3)
    assert repaired['info'] == dict(year=2026) and repaired['images'] == data['images']


def write_images(data: dict, folder) -> None:
    for image in data['images']:
        cv2.imwrite(str(folder / image['file_name']), np.zeros((image['height'], image['width']), np.uint8))


def boxes_in(data: dict) -> np.ndarray:
    return np.array([entry['bbox'] for entry in data['annotations']])


def repaired_by(path: str, arguments: list[str]) -> dict:
    assert main(arguments) == 0
    fixed = path.replace('.json', '_fixed.json')
    assert examine(fixed, CLASSES).findings == []
    with open(fixed) as file:
        return json.load(file)


@pytest.mark.parametrize('form', ('xyxy', 'cxcywh', 'yxhw', 'yxyx', 'cxcywh01'))
def test_the_suggested_command_repairs_a_mixture(spoiled, tmp_path, form):
    data = make(400)
    write_images(data, tmp_path)
    boxes = boxes_in(data)
    for entry in data['annotations']:
        if entry['image_id'] < 18:
            entry['bbox'] = from_xywh(np.array([entry['bbox']]), np.array([[640.0, 480.0]]), form)[0].tolist()
    path = spoiled(data)
    np.testing.assert_allclose(boxes_in(repaired_by(path, suggested(path))), boxes, rtol=0, atol=1e-3)


def test_what_a_mixture_leaves_open_is_said(spoiled, capsys):
    """Six images of one box each are xyxy; where nothing lies beyond the image, either format is possible."""
    data = make(20)
    for entry in data['annotations'][:5]:
        entry['bbox'] = [400, 300, 600, 450]
    data['annotations'][5]['bbox'] = [10, 10, 60, 60]
    path = spoiled(data)
    assert main(suggested(path)) == 0
    said = capsys.readouterr().out
    assert '5 boxes converted' in said and 'boxes left as they are' in said and f'in place of {path}' in said


def test_scaled_boxes_with_their_outlines(spoiled):
    data = make()
    boxes = boxes_in(data)
    for entry, box in zip(data['annotations'], (2 * boxes).tolist()):
        entry['bbox'] = box
    data['annotations'][0].update(segmentation=[[2, 2, 4, 2, 4, 4]], area=8.0)
    path = spoiled(data)
    source, target, option, factor = suggested(path)[1:]
    assert option == '--scale' and abs(float(factor) - 0.5) < 0.02
    found = repaired_by(path, ['convert-annotations', source, target, '--scale', '0.5'])
    np.testing.assert_allclose(boxes_in(found), boxes, rtol=0, atol=1e-3)
    entry = found['annotations'][0]
    assert (entry['segmentation'], entry['area']) == ([[1, 1, 2, 1, 2, 2]], 2.0)


def test_sizes_from_the_image_files(spoiled, tmp_path, capsys):
    data = make(200)
    write_images(data, tmp_path)
    for image in data['images'][:8]:
        image.update(width=480, height=640)
    path = spoiled(data)
    assert repaired_by(path, suggested(path))['images'] == make()['images']
    assert 'width and height of 8 images corrected' in capsys.readouterr().out


def test_boxes_that_are_right_are_clipped_on_demand(spoiled, capsys):
    data = make()
    for number, entry in enumerate(data['annotations'][:6]):
        entry['bbox'] = [600 + number, 10, 100, 100]
    data['annotations'][6]['bbox'] = [700, 10, 100, 100]
    path = spoiled(data)
    found = repaired_by(path, suggested(path))
    assert found['annotations'][1]['bbox'] == [601, 10, 39, 100] and len(found['annotations']) == 59
    assert '6 boxes clipped to their image, 1 outside it dropped' in capsys.readouterr().out


def test_entries_of_one_image_are_merged(spoiled, capsys):
    """The first of them stays, with what either has; what both have is there once."""
    data = make()
    expected = boxes_in(data)
    data['images'].append(dict(data['images'][3], id=1000))
    mine = [entry for entry in data['annotations'] if entry['image_id'] == 13]
    mine[1]['image_id'] = 1000
    data['annotations'].append(dict(mine[0], id=1000, image_id=1000))
    path = spoiled(data)
    found = repaired_by(path, suggested(path))
    assert '1 entries merged into others of the same file, 1 annotations dropped' in capsys.readouterr().out
    assert found['images'] == make()['images'] and (boxes_in(found) == expected).all()
    assert [entry['image_id'] for entry in found['annotations']] == [e['image_id'] for e in make()['annotations']]


def test_entries_of_one_image_with_two_sizes_are_not_merged(spoiled, tmp_path, capsys):
    data = make()
    data['images'].append(dict(data['images'][3], id=1000, width=480, height=640))
    assert main(['convert-annotations', spoiled(data), str(tmp_path / 'out.json'), '--merge-images']) == 1
    said = capsys.readouterr().err
    assert "$.images[20]: '3.png' has 480 x 640 pixels here and 640 x 480" in said and '--image-sizes' in said
    write_images(make(), tmp_path)
    command = ['convert-annotations', str(tmp_path / 'train.json'), str(tmp_path / 'out.json'), '--merge-images']
    assert main([*command, '--image-sizes', str(tmp_path)]) == 0
    assert json.loads((tmp_path / 'out.json').read_text())['images'] == make()['images']


def test_ids_as_strings_and_categories_from_zero(spoiled, tmp_path):
    data = make()
    for entry in data['annotations']:
        entry['image_id'] = str(entry['image_id'])
    assert main(suggested(spoiled(data))) == 0
    assert json.loads((tmp_path / 'train_fixed.json').read_text())['annotations'] == make()['annotations']
    data = make()
    for entry in data['annotations']:
        entry['category_id'] -= 1
    assert main([*suggested(spoiled(data)), '--force']) == 0
    assert json.loads((tmp_path / 'train_fixed.json').read_text())['annotations'] == make()['annotations']


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['{0}', '{0}', '--boxes', 'xyxy', '--force'], 'already exists'),
        (['{0}', '{1}'], 'Nothing to convert'),
        (['{0}', '{1}', '--mixed'], '--mixed needs --boxes or --scale'),
        (['{0}', '{1}', '--mixed', '--boxes', 'xyxy100'], 'percentages among pixels cannot be told apart'),
        (['{0}', '{1}', '--scale', '-1'], '--scale -1: must be a number above 0'),
        (['{0}', '{1}', '--image-sizes', 'gone'], "0.png' cannot be read"),
        (['{1}', '{0}x', '--integer-ids'], 'does not exist'),
    ],
)
def test_an_invalid_request_is_one_line(spoiled, tmp_path, capsys, arguments, message):
    path = spoiled(make())
    assert main(['convert-annotations', *[word.format(path, tmp_path / 'absent.json') for word in arguments]]) == 1
    assert message in capsys.readouterr().err
    assert json.loads((tmp_path / 'train.json').read_text())['annotations'] == make()['annotations']


def test_a_box_of_no_image_cannot_be_scaled(spoiled, tmp_path, capsys):
    data = make()
    data['annotations'][7]['image_id'] = 999
    assert main(['convert-annotations', spoiled(data), str(tmp_path / 'out.json'), '--boxes', 'xywh01']) == 1
    assert '$.annotations[7].image_id 999 is in none of the images' in capsys.readouterr().err
    assert not (tmp_path / 'out.json').exists()


def test_what_is_added_to_ids_that_are_strings(spoiled, tmp_path, capsys):
    data = make()
    for entry in data['annotations']:
        entry['category_id'] = str(entry['category_id'])
    call = ['convert-annotations', spoiled(data), str(tmp_path / 'out.json'), '--add-to-category-ids', '1']
    assert main(call) == 1
    assert "has the category_id '1', which is not an integer: pass --integer-ids" in capsys.readouterr().err
    assert not (tmp_path / 'out.json').exists()
