"""Findings about a COCO annotation file: types with their place, values with their likely cause."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from annotation_data import CLASSES, from_xywh, make

from mmcondetr.datasets.annotations import examine, read_checked
from mmcondetr.datasets.box_formats import FORMATS, guess_format, to_xywh
from mmcondetr.errors import UserError


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


def test_percentages_are_an_error_if_they_end_where_the_image_does(look):
    """60 boxes that do: an error; those that end earlier, or few: a warning. Both name cause and repair."""

    def percent(count: int, factor: float) -> dict:
        return spoil(make(count), lambda box, size: factor * from_xywh(box, size, 'xywh100'))

    error = only(look(percent(60, 1), part='train').errors)
    assert 'all coordinates lie between 0 and 100: the boxes are probably (x, y, width, height) in percent' in error
    assert '--boxes xywh100' in error and 'train_dataloader.dataset.ann_file=' in error
    for data in (percent(60, 0.9), percent(20, 1)):
        report = look(data)
        assert report.errors == [] and 'perhaps (x, y, width, height) in percent' in only(report.warnings)
        assert '--boxes xywh100' in only(report.warnings)


def test_boxes_that_are_no_percentages(look):
    data = spoil(make(), lambda box, size: from_xywh(box, size, 'xywh100'))
    for image in data['images']:
        image.update(width=128, height=104)
    assert look(data).findings == [], 'in images that are hardly larger'
    data = spoil(make(), lambda box, size: [[4, 5, 90, 20]])
    assert 'in percent' not in ' '.join(map(str, look(data).findings)), 'a timestamp, which fills no image'
    data = spoil(make(), lambda box, size: from_xywh(box, size, 'xywh100'))
    data['annotations'][0]['bbox'] = [10, 10, 120, 80]
    assert 'in percent' not in ' '.join(map(str, look(data).findings)), 'a box of more than 100'


@pytest.mark.parametrize('files', ['stated', 'swapped', 'gone'])
@pytest.mark.parametrize('share', [1, 0.5])
def test_boxes_with_y_first_and_swapped_sizes_are_told_apart_by_the_image_files(look, tmp_path, files, share):
    last = 10 + 20 * share
    data = spoil(make(400), lambda box, size: box[:, [1, 0, 3, 2]], lambda _, entry: entry['image_id'] < last)
    width, height = (640, 480) if files == 'stated' else (480, 640)
    for image in data['images'] if files != 'gone' else ():
        cv2.imwrite(str(tmp_path / image['file_name']), np.zeros((height, width), np.uint8))
    error = only(look(data, folder=str(tmp_path)).errors)
    if files == 'stated':
        assert 'probably (y, x, height, width)' in error and '--image-sizes' not in error
    elif files == 'swapped':
        assert 'are swapped in the file' in error and 'yxhw' not in error and f'--image-sizes {tmp_path}' in error
    else:
        assert 'They fit if x and y change places' in error and '--image-sizes FOLDER' in error
    if files != 'swapped':
        assert '--boxes yxhw' in error and ('--mixed' in error) == (share < 1)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('count', [1, 3, 10, 1000])
def test_boxes_as_in_coco_are_taken_for_what_they_are(count, seed):
    boxes = np.array([entry['bbox'] for entry in make(count, seed)['annotations']])
    boxes[: len(boxes) // 3, 2:] *= 1.2  # some stick out, as where annotators guess what is hidden
    assert guess_format(boxes, np.tile([640.0, 480.0], (len(boxes), 1)))[0] == 'xywh'


def spoil(data: dict, change, which=lambda index, entry: True) -> dict:
    """Change (box (4,), size (2,)) of some annotations."""
    for index, entry in enumerate(data['annotations']):
        if which(index, entry):
            box = change(np.array([entry['bbox']]), np.array([[640.0, 480.0]]))
            entry['bbox'] = np.asarray(box, float).ravel().round(4).tolist()
    return data


@pytest.mark.parametrize('form', ('xyxy', 'cxcywh', 'xywh01', 'cxcywh01'))
@pytest.mark.parametrize('share', (0.5, 0.1))
def test_a_mixture_of_formats_stops_with_counts_and_the_first_entry(look, form, share):
    last = 10 + 20 * share
    data = spoil(make(400), lambda box, size: from_xywh(box, size, form), lambda _, entry: entry['image_id'] < last)
    report = look(data)
    error = only(report.errors)
    assert report.errors[0].path.startswith('$.annotations[') and '*' not in report.errors[0].path
    assert 'of 400 boxes' in error and 'mixture' in error and f'--boxes {form} --mixed' in error
    assert form.endswith('01') or f"in {round(20 * share)} images, the first in '" in error


def test_a_mixture_within_images_cannot_be_repaired_and_says_so(look):
    data = spoil(make(400), lambda box, size: from_xywh(box, size, 'xyxy'), lambda index, _: index % 3 == 0)
    error = only(look(data).errors)
    assert 'others in the same images are not' in error and 'convert-annotations' not in error


def test_swapped_sizes_and_other_sizes_stop_with_their_cause(look):
    data = make(200)
    for image in data['images'][:10]:
        image.update(width=480, height=640)
    error = only(look(data).errors)
    assert 'in 10 images' in error and 'probably swapped' in error and '--image-sizes FOLDER' in error
    assert 'or the boxes are (y, x, height, width)' in error
    error = only(look(spoil(make(200), lambda box, size: 2 * box)).errors)
    assert 'reduced to 1/2 of their size without their boxes' in error and '--scale 0.5' in error
    far = spoil(make(200), lambda box, size: box + [[0, 0, 640, 0]], lambda index, _: index % 20 == 0)
    assert 'They may have been drawn on other images' in only(look(far).errors)


@pytest.mark.parametrize(
    'change, every',
    [
        (lambda box, size: box + [[0.01 * 640, 0.01 * 480, 0, 0]], 1),  # rounding
        (lambda box, size: box + [[0, 0, 640, 0]], 100),  # a few slips
        (lambda box, size: np.hstack([box[:, :2] - 0.3 * box[:, 2:], 1.6 * box[:, 2:]]), 1),  # what is hidden, guessed
    ],
)
def test_boxes_beyond_their_image_are_clipped_where_that_is_plausible(look, change, every):
    report = look(spoil(make(200), change, lambda index, _: index % every == 0))
    assert report.errors == [] and 'beyond their image by more than a pixel and are clipped' in only(report.warnings)


def test_boxes_in_one_corner_of_all_images_are_a_warning(look):
    report = look(spoil(make(), lambda box, size: box / 2))
    assert report.errors == [] and 'none of 60 boxes reaches the right or the lower 45%' in only(report.warnings)
    assert look(spoil(make(40), lambda box, size: box / 2)).findings == [], 'too few to wonder'


def test_boxes_without_area_only_stop_a_training(look):
    data = spoil(make(), lambda box, size: box * [[1, 1, 0, 1]])
    assert 'are left out (annotation ids 1, 2, 3, 4, 5, ...), so none is left' in only(look(data).errors)
    assert look(spoil(make(), lambda box, size: box * [[1, 1, 0, 1]], lambda index, _: index % 3 == 0)).errors == []


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('form', ['xywh', 'cxcywh'])
def test_sizes_that_were_taken_for_corners_stop_with_the_cause(look, form, training):
    def subtract(box, size):  # as a converter from Pascal VOC does
        numbers = box + np.hstack([box[:, 2:] / 2, 0 * box[:, 2:]]) if form == 'cxcywh' else box
        return np.hstack([numbers[:, :2], numbers[:, 2:] - numbers[:, :2]])

    error = only(look(spoil(make(200), subtract), training=training).errors)
    meaning = 'centre x, centre y, width' if form == 'cxcywh' else 'x, y, width'
    assert 'and are left out' in error and f'(xmin, ymin, xmax, ymax) is probably ({meaning}' in error


def test_the_config_must_name_the_repaired_file(look, tmp_path):
    data = spoil(make(), lambda box, size: from_xywh(box, size, 'xyxy'))
    fixed = tmp_path / 'a_fixed.json'
    assert f"pass '--cfg-options train_dataloader.dataset.ann_file={fixed}'" in only(look(data, part='train').errors)
    for part in ('val', 'test'):
        options = f'{part}_dataloader.dataset.ann_file={fixed} {part}_evaluator.ann_file={fixed}'
        assert f"pass '--cfg-options {options}'" in only(look(data, training=False, part=part).errors)
    assert 'then pass the new file to mmcondetr init' in only(look(data).errors)
    with pytest.raises(UserError, match=f'let the config name .* train_dataloader.dataset.ann_file={fixed}'):
        read_checked(str(tmp_path / 'a.json'), 'train_dataloader.dataset.ann_file', CLASSES)


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


def test_crowds_alone_are_nothing_to_learn(look):
    data = make()
    data['annotations'] = [dict(annotation, iscrowd=1) for annotation in data['annotations']]
    assert f'is 1 in all {len(data["annotations"])} annotations' in only(look(data).errors)
    assert look(data, training=False).errors == []


def test_ignored_annotations_alone_are_nothing_to_learn(look):
    data = make()
    count = len(data['annotations'])
    for entry in data['annotations']:
        entry['ignore'] = 1
    said = f'$.annotations[0].ignore: {count} of {count} annotations have ignore = 1 and 0 are crowds, which are not'
    assert only(look(data).errors).startswith(said)
    assert not look(data, training=False).errors
    for entry in data['annotations'][:3]:
        entry['iscrowd'] = 1
    assert f'{count - 3} of {count} annotations have ignore = 1 and 3 are crowds' in only(look(data).errors)
    del data['annotations'][5]['ignore']
    assert only(look(data).warnings).endswith(f'1 of {count} is left')
    for entry in data['annotations'][: count // 2 + 1]:
        entry.update(ignore=0, iscrowd=0)
    assert not look(data).findings


@pytest.mark.parametrize('number', [2**63, -(2**63), 10**25, -(10**4000)])
@pytest.mark.parametrize('part', ['images', 'annotations', 'categories'])
def test_ids_that_numpy_holds_as_no_integer(look, part, number):
    """With image ids of both kinds, AP was another: NumPy made floats of them, and several images one."""
    data = make()
    data[part][1]['id'] = number
    assert f'$.{part}[1].id: ' in str(look(data).errors[0]) and '64-bit' in str(look(data).errors[0])


@pytest.mark.parametrize('name', ['\ud800', 'cat\n', '\x1b[31mred', '\0', '\x9b2J', 'a\u2028b'])
def test_names_that_are_no_text(look, name):
    data = make()
    data['categories'][1]['name'] = name
    error = str(look(data, None).errors[0])
    assert error.startswith(f'$.categories[1].name: {ascii(name)} is no name of a class') and error.isprintable()


def test_names_in_any_script(look):
    data = make()
    data['categories'][0]['name'], data['categories'][1]['name'] = 'می\u200cخواهم', '$\\frac{$ 👨\u200d👩\u200d👧'
    assert not look(data, None).findings


@pytest.mark.parametrize('training', [True, False])
def test_sides_as_fractions_and_corners_in_pixels(look, training):
    data = make()
    sizes = {image['id']: (image['width'], image['height']) for image in data['images']}
    for entry in data['annotations']:
        (x, y, width, height), size = entry['bbox'], sizes[entry['image_id']]
        entry['bbox'] = [x, y, width / size[0], height / size[1]]
    message = only(look(data, training=training).errors)
    assert message.startswith('$.annotations[0].bbox: 60 of 60 boxes are smaller than a pixel: width and height are')


def test_corners_as_fractions_and_sides_in_pixels(look):
    data = make()
    sizes = {image['id']: (image['width'], image['height']) for image in data['images']}
    for entry in data['annotations']:
        (x, y, width, height), size = entry['bbox'], sizes[entry['image_id']]
        entry['bbox'] = [x / size[0], y / size[1], width, height]
    message = only(look(data).errors)
    assert message.startswith('$.annotations[*].bbox: x and y of 60 of 60 boxes lie between 0 and 1: they are probably')


def test_boxes_smaller_than_a_pixel(look):
    data = make()
    for entry in data['annotations'][::10]:
        entry['bbox'][2:] = [1e-6, 1e-6]
    message = only(look(data).warnings)
    assert message == '$.annotations[0].bbox: 6 of 60 boxes are smaller than a pixel'
    for entry in data['annotations']:
        entry['bbox'][2:] = [1e-6, 1e-6]
    assert 'annotations[0].bbox: 60 of 60 boxes are smaller than a pixel, although' in only(look(data).errors)


@pytest.mark.parametrize('box', [[0.5, 0.25, 630, 470], [7, 9, 1, 1], [0, 0, 640, 480]])
def test_whole_images_and_single_pixels_are_no_fractions(look, box):
    data = make()
    for index, entry in enumerate(data['annotations']):
        entry['bbox'] = [box[0] + index % 7 / 100, *box[1:3], box[3] - index / 100 * (box[3] > 1)]
    assert not look(data).errors


def test_classes_that_the_config_lacks_are_counted(look):
    report = look(make(), ('dog',))
    assert report.errors == []
    assert "30 of 60 annotations are of categories that are not in metainfo['classes']" in only(report.warnings)
    assert only(report.warnings).endswith('are left out: cat (30)')


def test_classes_without_annotations_that_the_config_lacks_are_no_loss(look):
    data = make()
    data['categories'].insert(0, dict(id=3, name='bird'))
    assert look(data).findings == []
    assert only(look(data, ('dog',)).warnings).endswith('are left out: cat (30)')


def test_boxes_without_area_are_counted(look):
    data = make()
    data['annotations'][2]['bbox'][2] = 0
    data['annotations'][4]['bbox'][3] = -5
    assert '2 boxes lie outside their image or have no area' in only(look(data).warnings)
    assert 'annotation ids 3, 5' in only(look(data).warnings)


def test_copies_are_counted(look):
    data = make()
    data['annotations'].append(dict(data['annotations'][0], id=1000))
    copies = look(data).warnings[0]
    assert (copies.path, '1 annotations are copies' in copies.message) == ('$.annotations[60]', True)


def list_again(data: dict, index: int, new_id: int, annotations: slice) -> None:
    """List an image once more, with copies of some of its annotations."""
    image = data['images'][index]
    own = [entry for entry in data['annotations'] if entry['image_id'] == image['id']]
    data['images'].append(dict(image, id=new_id))
    for number, entry in enumerate(own[annotations]):
        data['annotations'].append(dict(entry, id=100 * new_id + number, image_id=new_id))


def test_an_image_listed_twice_with_the_same_annotations_is_a_warning(look):
    data = make()
    list_again(data, 0, 1000, slice(None))
    report = look(data)
    assert report.errors == [] and 'once, with the same annotations: 0.png' in only(report.warnings)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('change', ['none', 'fewer', 'class', 'box', 'crowd', 'outline'])
def test_an_image_listed_twice_with_other_annotations_stops(look, training, change):
    data = make()
    list_again(data, 3, 1000, dict(none=slice(0), fewer=slice(1)).get(change, slice(None)))
    last = data['annotations'][-1]
    if change == 'class':
        last['category_id'] = 3 - last['category_id']
    elif change == 'box':
        last['bbox'] = [1, *last['bbox'][1:]]
    elif change == 'crowd':
        last['iscrowd'] = 1
    elif change == 'outline':
        last['segmentation'] = [[1, 1, 9, 1, 9, 9]]
    list_again(data, 5, 1001, slice(None))  # which is no more than a warning
    report = look(data, training=training, part='train')
    error = only(report.errors)
    count = dict(none=0, fewer=1).get(change, 3)
    assert error.startswith('$.images[20]: 1 files are listed more than once, with different annotations: in each')
    assert f"'3.png' (ids 13, 1000, with 3, {count} annotations)" in error and '--merge-images' in error
    assert 'more than once, with the same annotations: 5.png' in only(report.warnings)


def test_an_image_of_one_id_listed_twice_is_one_error(look):
    data = make()
    data['images'].append(dict(data['images'][4]))
    assert 'ids in images repeat: 14' in only(look(data).errors)


def test_names_that_differ_in_case_or_blanks_only_are_a_warning(look):
    data = make()
    data['categories'] += [dict(id=3, name='Cat '), dict(id=4, name='hot dog'), dict(id=5, name='Hot  Dog')]
    for entry, category in zip(data['annotations'], (3, 3, 4, 5)):
        entry['category_id'] = category
    report = look(data, classes=None)
    assert report.errors == []
    assert [finding.path for finding in report.warnings] == ['$.categories[2].name', '$.categories[4].name']
    first, second = map(str, report.warnings)
    assert "'cat' (28), 'Cat ' (2) are 2 classes whose names differ only in case or blanks" in first
    assert "'hot dog' (1), 'Hot  Dog' (1)" in second


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
