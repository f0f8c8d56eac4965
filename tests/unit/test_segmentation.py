"""Instance masks of COCO JSON: what cannot be rasterised is reported, with its file and field."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mmdet.datasets.transforms import PackDetInputs
from mmengine.registry import init_default_scope
from panoptic_files import edit_json
from pycocotools import mask as rle

from mmcondetr.datasets import polygons
from mmcondetr.datasets.annotations import examine
from mmcondetr.datasets.segmentation import decode_counts, decode_mask, encode_mask
from mmcondetr.datasets.shapes import generate_shapes
from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS, METRICS


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def run_lengths(mask: np.ndarray) -> list[int]:
    flat = mask.ravel(order='F').astype(int)
    borders = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *borders, flat.size]).tolist()
    return lengths if flat[0] == 0 else [0, *lengths]


@pytest.mark.parametrize('seed', range(8))
def test_compressed_run_lengths_are_those_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((5, 7)) < 0.5, np.ones((1 + 40 * seed, 9), bool))
    counts = rle.encode(np.asfortranarray(mask, np.uint8))['counts'].decode()
    assert decode_counts(counts) == run_lengths(mask)


def test_masks_of_every_form_are_decoded():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 6:16] = True
    for form in (
        encode_mask(mask),
        dict(size=[20, 30], counts=run_lengths(mask)),
        [[6, 4, 16, 4, 16, 9, 6, 9]],
        [[6, 4, 10, 4, 10, 9, 6, 9], [10, 4, 16, 4, 16, 9, 10, 9]],
    ):
        decoded = decode_mask(form, 20, 30)
        assert decoded.dtype == bool and (decoded == mask).all(), form


@pytest.mark.parametrize('groups', range(1, 7))
def test_numbers_in_more_groups_than_needed_are_those_of_pycocotools(groups):
    """Here 9 in the first groups, then empty ones, and the difference -16 likewise."""
    nine = ''.join(chr(48 + 32 * (i < groups - 1) + (9 if i == 0 else 0)) for i in range(groups))
    less = ''.join(chr(48 + 32 * (i < groups - 1) + (16 if i == 0 else 31)) for i in range(groups))
    text = nine + '`2' + 'T2' + less + 'b`0'
    lengths = decode_counts(text)
    assert lengths[0] == 9 and lengths[3] == lengths[1] - 16
    mask = rle.decode(dict(size=[1, sum(lengths)], counts=text))[0]
    assert np.flatnonzero(np.diff(mask.astype(int))).tolist() == (np.cumsum(lengths)[:-1] - 1).tolist()


@pytest.mark.parametrize(
    'text', ['', 'o', '\x01', 'é', 'P' * 40 + '0', 'P' * 6 + '0', 'Y' + 'P' * 6 + '0' + '1', '1o' + 'o' * 5 + 'O']
)
def test_text_that_is_no_run_lengths(text):
    assert decode_counts(text) is None


def write(tmp_path, segmentation, iscrowd=0):
    """One image of 40 x 30 (width x height) with one annotation."""
    annotation = dict(id=7, image_id=1, category_id=1, bbox=[5, 5, 20, 20], area=400, iscrowd=iscrowd)
    if segmentation is not None:
        annotation['segmentation'] = segmentation
    data = dict(
        images=[dict(id=1, file_name='1.png', width=40, height=30)],
        annotations=[annotation],
        categories=[dict(id=1, name='cat')],
    )
    (tmp_path / 'val.json').write_text(json.dumps(data))
    return str(tmp_path / 'val.json')


def build(ann_file, with_mask=True, **options):
    return DATASETS.build(
        dict(
            type='mmcondetr.CocoDataset',
            ann_file=ann_file,
            metainfo=dict(classes=('cat',)),
            data_prefix=dict(img=''),
            check_images=False,
            pipeline=[dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=with_mask)],
            **options,
        )
    )


WRONG = {
    'is missing': None,
    'is empty: a list without polygons': [],
    'holds a polygon of 0 numbers': [[]],
    'holds a polygon of 4 numbers': [[1, 1, 5, 5]],
    'holds a polygon of 7 numbers': [[1, 1, 5, 5, 9, 9, 3]],
    'is not a list of finite numbers': [[1, 1, float('nan'), 5, 9, 9]],
    'a polygon outside the image: x 50 to 60, y 1 to 5': [[50, 1, 60, 1, 60, 5]],
    'is not a list of finite numbers x1': [[1, 1, 10**400, 5, 9, 9]],
    r'a polygon far outside the image: x 0 to 1e\+09, y 0 to 1e\+09': [[0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9]],
    'a polygon far outside the image: x -401 to 30': [[-401, 5, 30, 5, 30, 9]],
    r'a polygon whose outline is 4.4e\+06 pixels long': [[0, 5, 440, 5] * 5000],
    r'has size \[40, 30\] \(height, width\), but the image is \[30, 40\]': dict(size=[40, 30], counts=[1200]),
    'whose sum is 1100, not height x width = 1200': dict(size=[30, 40], counts=[1000, 100]),
    'is empty: no pixel is set': dict(size=[30, 40], counts=[1200]),
    'has counts that are not compressed run lengths': dict(size=[30, 40], counts='o'),
    'has counts that are not compressed run lengths of': dict(size=[30, 40], counts='b1X1l1`oooooOhNfa9'),
    'neither a string nor a list': dict(size=[30, 40], counts=None),
    'is a str, but must be': 'polygon',
    'covers x 27 to 39, y 1 to 4, which is beside its bbox, x 5 to 25, y 5 to 25': [
        [27, 1, 39, 1, 39, 4],
        [30, 2, 31, 2, 31, 3],
    ],
    'covers x 37 to 39, y 0 to 30, which is beside its bbox': dict(size=[30, 40], counts=[37 * 30, 60, 30]),
    'covers x 0 to 3, y 0 to 2, which is beside its bbox': encode_mask(
        np.pad(np.ones((2, 3), bool), ((0, 28), (0, 37)))
    ),
}


@pytest.mark.parametrize('message', WRONG)
def test_wrong_masks_stop_before_training_and_testing(tmp_path, message):
    path = write(tmp_path, WRONG[message])
    where = r"val.json' \(train_dataloader.dataset.ann_file\): \$.annotations\[0\].segmentation \(id 7, image 1\) .*"
    with pytest.raises(UserError, match=where + message):
        build(path)
    with pytest.raises(UserError, match=message):
        METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric=['bbox', 'segm']))
    build(path, with_mask=False)
    METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric='bbox'))


LONG = {
    'in one annotation': [[[0, 5, 400, 5] * 30]],
    'of several annotations': [[[0, 5, 400, 5] * 5]] * 6,
    'merged one by one': [[[0, 5, 40, 5, 40, 6]] * 200],
}


@pytest.mark.parametrize('name', LONG)
@pytest.mark.parametrize('metric', ['bbox', 'segm'])
def test_outlines_that_are_together_too_long_to_rasterise(tmp_path, monkeypatch, name, metric):
    """Each is short enough, but no time is enough for all; with ``bbox`` they are for the areas that are missing."""
    path = write(tmp_path, None)

    def edit(data):
        entry = data['annotations'].pop()
        del entry['area']
        data['annotations'] = [dict(entry, id=i, segmentation=value) for i, value in enumerate(LONG[name])]

    edit_json(tmp_path / 'val.json', edit)
    metric = dict(type='mmcondetr.CocoMetric', ann_file=path, metric=metric)
    METRICS.build(metric)
    monkeypatch.setattr(polygons, '_ALWAYS', 0)
    monkeypatch.setattr(polygons, '_PER_BYTE', 1)
    with pytest.raises(UserError, match=r'segmentation.* \(id .* the outlines of this file are too long to rasterise'):
        METRICS.build(metric)


def test_long_outlines_of_a_plausible_file(tmp_path, monkeypatch):
    """Each of sixteen objects has the outline of its whole image; and one has a fine outline, of many points."""
    monkeypatch.setattr(polygons, '_ALWAYS', 0)
    path = write(tmp_path, None)
    frame, fine = [0, 0, 40, 0, 40, 30, 0, 30], [v for i in range(2000) for v in (i % 40, 5 + i % 2)]

    def edit(data):
        entry = data['annotations'].pop()
        for i in range(17):
            data['annotations'].append(dict(entry, id=i, bbox=[0, 0, 40, 30], segmentation=[frame if i else fine]))

    edit_json(tmp_path / 'val.json', edit)
    METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric='segm'))


def test_polygons_without_a_pixel_are_counted_and_kept(tmp_path):
    """COCO has a few."""
    path = write(tmp_path, [[5.1, 5, 5.2, 5, 5.2, 25]])
    warning = r"val.json' .*: 1 of 1 annotations have polygons so small .* mask AP is measured \(annotation ids 7\)"
    with pytest.warns(UserWarning, match=warning):
        dataset = build(path)
    item = dataset.pipeline(dict(dataset.get_data_info(0), ori_shape=(30, 40)))
    assert item['gt_masks'].masks.shape == (1, 30, 40) and not item['gt_masks'].masks.any()
    assert item['gt_ignore_flags'].tolist() == [False]
    with pytest.warns(UserWarning, match=warning.replace('.*', '.*val_evaluator.*', 1)):
        METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric='segm'))


TRIANGLE, LENGTHS = [[5, 5, 25, 5, 25, 25]], dict(size=[30, 40], counts=[500, 100, 600])


@pytest.mark.parametrize('area', [None, 0])
@pytest.mark.parametrize(
    ('segmentation', 'expected'),
    [(TRIANGLE, 200), (LENGTHS, 100), (None, 400), ([[1, 1, 2, 2]], 400)],
    ids=['polygon', 'run lengths', 'none', 'a wrong one'],
)
@pytest.mark.parametrize('metric', ['bbox', 'segm'])
def test_a_missing_area_is_that_of_the_segmentation(tmp_path, area, segmentation, expected, metric):
    """It decides whether COCO's AP counts an object as small or large."""
    path = write(tmp_path, segmentation)
    edit_json(tmp_path / 'val.json', lambda data: data['annotations'][0].update(area=area))
    if metric == 'segm' and expected == 400:
        with pytest.raises(UserError, match=r'\.segmentation'):
            METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric=metric))
        return
    built = METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric=metric))
    assert built._coco_api.anns[1]['area'] == pytest.approx(expected, abs=20)
    with pytest.warns(UserWarning, match='have no area, or 0: taken as that of the segmentation'):
        assert len(build(path, with_mask=False).get_data_info(0)['instances']) == 1, 'it is kept'


def test_the_number_of_wrong_masks(tmp_path):
    path = write(tmp_path, [])
    edit_json(tmp_path / 'val.json', lambda data: data['annotations'].append(dict(data['annotations'][0], id=8)))
    with pytest.raises(UserError, match=r'\(id 7, image 1\) is empty.*leave .* out. \(1 more such errors in this file'):
        build(path)


def test_a_mask_that_is_no_text(tmp_path):
    """Segmentations are decoded only where masks are used: until then nobody has looked at their bytes."""
    path = write(tmp_path, dict(size=[30, 40], counts='here'))
    with open(path, 'rb') as file:
        content = file.read().replace(b'here', b'h\xd6re')
    with open(path, 'wb') as file:
        file.write(content)
    with pytest.raises(UserError, match=r'\$.annotations\[0\].segmentation .* cannot be read as JSON: .*utf-8'):
        build(path)
    build(path, with_mask=False)


@pytest.mark.parametrize('iscrowd', [0, 1])
@pytest.mark.parametrize(
    'segmentation',
    [[[5, 5, 25, 5, 25, 25]], [[20, 20, 60, 20, 60, 50]], dict(size=[30, 40], counts=[500, 100, 600])],
    ids=['polygon', 'sticks out', 'uncompressed'],
)
def test_right_masks_load(tmp_path, segmentation, iscrowd):
    dataset = build(write(tmp_path, segmentation, iscrowd), test_mode=bool(iscrowd))  # crowds alone train nothing
    item = dataset.pipeline(dict(dataset.get_data_info(0), ori_shape=(30, 40)))
    assert item['gt_masks'].masks.shape == (1, 30, 40) and item['gt_masks'].masks.sum() > 40
    assert item['gt_ignore_flags'].tolist() == [bool(iscrowd)]
    packed = PackDetInputs(meta_keys=())(dict(item, img=np.zeros((30, 40, 3), np.uint8)))['data_samples']
    assert len(packed.gt_instances.masks) == len(packed.gt_instances) == 1 - iscrowd, 'a crowd is no target'


def test_shapes_have_masks_that_fit_their_boxes(tmp_path):
    generate_shapes(tmp_path / 'set', num_train=6, num_val=1, image_size=64)
    data = json.loads((tmp_path / 'set/annotations/train.json').read_text())
    for annotation in data['annotations']:
        encoded = dict(annotation['segmentation'], counts=annotation['segmentation']['counts'].encode())
        assert rle.area(encoded) == annotation['area']
        assert rle.toBbox(encoded).tolist() == annotation['bbox']


def test_a_box_without_area_has_no_place_to_compare(tmp_path):
    """It is left out, with a warning, whatever its outline."""
    path = write(tmp_path, [[30, 1, 39, 1, 39, 4]])
    edit_json(tmp_path / 'val.json', lambda data: data['annotations'][0].update(bbox=[5, 5, 0, 20]))
    with pytest.warns(UserWarning, match='area'):
        METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric='segm'))


@pytest.mark.parametrize('corner', [1e9, 3e8, -1e5, 10**400, float('nan')])
def test_an_outline_that_rasterising_crashes_on_does_not_become_an_area(tmp_path, corner):
    """pycocotools ended the process, hung or took gigabytes, in tests that do not even use masks."""
    path = write(tmp_path, [[0, 0, corner, 0, corner, corner, 0, corner]])
    edit_json(tmp_path / 'val.json', lambda data: data['annotations'][0].pop('area'))
    where = r'val.json.*: \$.annotations\[0\].segmentation: \(id 7\) holds a polygon .*cannot be taken from it'
    with pytest.raises(UserError, match=where):
        METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric='bbox'))
    with pytest.raises(UserError, match=where):
        build(path, with_mask=False)
    assert [error.path for error in examine(path).errors] == ['$.annotations[0].segmentation']


def test_an_outline_that_continues_beyond_the_image_is_clipped(tmp_path):
    path = write(tmp_path, [[5, 5, 400, 5, 400, 300, 5, 300]])
    edit_json(tmp_path / 'val.json', lambda data: data['annotations'][0].pop('area'))
    metric = METRICS.build(dict(type='mmcondetr.CocoMetric', ann_file=path, metric=['bbox', 'segm']))
    assert metric._coco_api.anns[1]['area'] == 35 * 25
    assert build(path).get_data_info(0)['instances'][0]['mask']


def test_an_image_said_to_be_larger_than_any_that_is_decoded(tmp_path):
    path = write(tmp_path, [[5, 5, 20, 5, 20, 20]])
    edit_json(tmp_path / 'val.json', lambda data: data['images'][0].update(width=10**9, height=10**9))
    with pytest.raises(UserError, match=r"\$.images\[0\]: '1.png' is to have 1e\+09x1e\+09 pixels, and more than 1789"):
        build(path)
