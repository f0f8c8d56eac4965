"""Findings about a COCO annotation file: types with their place, values with their likely cause."""

from __future__ import annotations

import json

import numpy as np
import pytest
from annotation_data import CLASSES, from_xywh, make

from mmcondetr.datasets.annotations import examine
from mmcondetr.datasets.box_formats import FORMATS, guess_format, to_xywh


@pytest.fixture
def look(tmp_path):
    """Write data and examine it: the report."""

    def write_and_examine(data, classes=CLASSES, **options):
        path = tmp_path / 'a.json'
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        return examine(str(path), classes, **options)

    return write_and_examine


def only(findings: list) -> str:
    assert len(findings) == 1, [str(finding) for finding in findings]
    return str(findings[0])


def test_a_good_file_gives_no_finding_but_statistics(look):
    report = look(make())
    assert report.findings == []
    assert report.statistics['boxes_per_class'] == dict(cat=30, dog=30)
    assert (report.statistics['images'], report.statistics['annotations']) == (20, 60)
    assert sum(report.statistics['boxes_by_area'].values()) == 60


@pytest.mark.parametrize(
    'place, value, message',
    [
        (('annotations', 3, 'bbox'), [1, 2, 3], '$.annotations[3].bbox: expected a list of four numbers'),
        (('annotations', 3, 'bbox'), None, "$.annotations[3].bbox: expected 'array', got 'null'"),
        (('annotations', 3, 'bbox', 2), '9', "$.annotations[3].bbox[2]: expected 'float', got 'str'"),
        (('annotations', 3, 'image_id'), [10], "$.annotations[3].image_id: expected 'int | str', got 'array'"),
        (('annotations', 3), None, "$.annotations[3]: expected 'object', got 'null'"),
        (('annotations',), None, "$.annotations: expected 'array', got 'null'"),
        (('images', 2, 'width'), '640', "$.images[2].width: expected 'float', got 'str'"),
        (('images', 2, 'width'), 0, '$.images[2]: width and height of'),
        (('images', 2, 'height'), 480.5, '$.images[2]: width and height of'),
        (('images', 2, 'file_name'), 7, "$.images[2].file_name: expected 'str', got 'int'"),
        (('categories', 0, 'name'), None, "$.categories[0].name: expected 'str', got 'null'"),
        (('categories', 0), {'id': 1}, "$.categories[0]: lacks 'name'"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(look, place, value, message):
    data = make()
    target = data
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    assert str(look(data).errors[0]).startswith(message)


@pytest.mark.parametrize(
    'content', [b'', b'{', b'[]', b'null', b'"x"', b'\xff\xfe', b'[' * 100_000, b'{"info":' * 50_000]
)
def test_what_is_no_annotation_file_is_one_error(look, content):
    assert any(word in only(look(content).errors) for word in ('JSON', 'COCO format', 'UTF-8'))


@pytest.mark.parametrize('form', FORMATS)
def test_boxes_of_another_format_stop_with_the_command_that_converts_them(look, form):
    data = make()
    boxes = np.array([entry['bbox'] for entry in data['annotations']])
    sizes = np.tile([640.0, 480.0], (len(boxes), 1))
    other = from_xywh(boxes, sizes, form)
    np.testing.assert_allclose(to_xywh(other, sizes, form), boxes, rtol=0, atol=1e-9)
    for entry, box in zip(data['annotations'], other.tolist()):
        entry['bbox'] = box
    error = only(look(data).errors)
    assert f'--boxes {form}' in error and 'mmcondetr convert-annotations' in error and 'probably' in error


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('count', [1, 3, 10, 1000])
def test_boxes_as_in_coco_are_taken_for_what_they_are(count, seed):
    boxes = np.array([entry['bbox'] for entry in make(count, seed)['annotations']])
    boxes[: len(boxes) // 3, 2:] *= 1.2  # some stick out, as where annotators guess what is hidden
    assert guess_format(boxes, np.tile([640.0, 480.0], (len(boxes), 1)))[0] == 'xywh'


def test_references_to_nothing(look):
    data = make()
    data['annotations'][3]['image_id'] = 999
    data['annotations'][5]['category_id'] = 7
    first, second = look(data).errors
    assert str(first) == (
        '$.annotations[3].image_id: 1 of 60 annotations have an image_id that is in none of the images: 999'
    )
    assert second.path == '$.annotations[5].category_id'


def test_numbers_against_strings(look):
    data = make()
    for entry in data['annotations']:
        entry['image_id'] = str(entry['image_id'])
    assert 'They are strings where the images have numbers' in only(look(data).errors)
    assert '--integer-ids' in only(look(data).errors)


def test_categories_counted_from_zero(look):
    data = make()
    for entry in data['annotations']:
        entry['category_id'] -= 1
    error = only(look(data).errors)
    assert 'count from 0 and the categories from 1' in error and '--add-to-category-ids 1' in error


def test_no_annotations(look):
    data = dict(make(), annotations=[])
    assert 'nothing to learn' in only(look(data).errors)
    assert look(data, training=False).errors == []


def test_classes_that_the_config_lacks_are_counted(look):
    report = look(make(), ('dog',))
    assert report.errors == []
    assert "30 of 60 annotations are of categories that are not in metainfo['classes']" in only(report.warnings)
    assert 'cat (30)' in only(report.warnings)


def test_boxes_without_area_are_counted(look):
    data = make()
    data['annotations'][2]['bbox'][2] = 0
    data['annotations'][4]['bbox'][3] = -5
    assert '2 boxes lie outside their image or have no area' in only(look(data).warnings)
    assert 'annotation ids 3, 5' in only(look(data).warnings)


def test_copies_and_images_listed_twice(look):
    data = make()
    data['annotations'].append(dict(data['annotations'][0], id=1000))
    data['images'].append(dict(data['images'][0], id=1000))
    names, copies = look(data).warnings
    assert '1 files are listed more than once: 0.png' in str(names)
    assert (copies.path, '1 annotations are copies' in copies.message) == ('$.annotations[60]', True)


def test_missing_area_and_iscrowd_are_said(look):
    data = make()
    del data['annotations'][1]['area'], data['annotations'][1]['iscrowd']
    data['annotations'][2]['area'] = 0
    area, crowd = look(data).warnings
    assert str(area) == (
        '$.annotations[1].area: 2 of 60 annotations have no area, or 0: taken as that of the segmentation or, without '
        'one, of the box'
    )
    assert 'no iscrowd: taken as 0' in str(crowd)


def test_python_s_nan_is_read_and_left_out(look):
    data = make()
    data['annotations'][1]['bbox'][0] = float('nan')
    assert '1 boxes lie outside their image or have no area' in only(look(data).warnings)


def test_a_byte_order_mark_is_no_error(look):
    assert look(b'\xef\xbb\xbf' + json.dumps(make()).encode()).findings == []
