"""The generated data set: reproducible, tight boxes, complete or absent."""

from __future__ import annotations

import hashlib
import json
import warnings

import cv2
import numpy as np
import pytest

from mmcondetr.datasets import shapes
from mmcondetr.datasets.shapes import SHAPES_CLASSES, draw_image, generate_shapes
from mmcondetr.errors import UserError
from mmcondetr.registry import DATASETS


def digest(root) -> str:
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return hashlib.sha256(b''.join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def test_a_seed_gives_the_same_files(tmp_path):
    for name, seed in (('a', 3), ('b', 3), ('c', 4)):
        generate_shapes(tmp_path / name, num_train=5, num_val=3, image_size=64, seed=seed)
    assert digest(tmp_path / 'a') == digest(tmp_path / 'b') != digest(tmp_path / 'c')


def test_a_larger_set_begins_with_the_smaller_one(tmp_path):
    generate_shapes(tmp_path / 'small', num_train=3, num_val=2, image_size=64)
    generate_shapes(tmp_path / 'large', num_train=6, num_val=2, image_size=64)
    name = 'train/000002.png'
    assert (tmp_path / 'small' / name).read_bytes() == (tmp_path / 'large' / name).read_bytes()


def test_training_and_held_out_images_differ(tmp_path):
    generate_shapes(tmp_path / 'set', num_train=2, num_val=2, image_size=64)
    assert (tmp_path / 'set/train/000000.png').read_bytes() != (tmp_path / 'set/val/000000.png').read_bytes()


def test_annotations_are_coco_and_inside_the_image(tmp_path):
    generate_shapes(tmp_path / 'set', num_train=40, num_val=2, image_size=96)
    data = json.loads((tmp_path / 'set/annotations/train.json').read_text())
    assert [category['name'] for category in data['categories']] == list(SHAPES_CLASSES)
    assert len(data['images']) == 40 and len(data['annotations']) > 80
    assert {annotation['category_id'] for annotation in data['annotations']} == set(range(1, len(SHAPES_CLASSES) + 1))
    for annotation in data['annotations']:
        x, y, width, height = annotation['bbox']
        assert x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= 96 and y + height <= 96
        assert 0 < annotation['area'] <= width * height
    sides = [max(annotation['bbox'][2:]) for annotation in data['annotations']]
    assert min(sides) < 96 * 0.2 and max(sides) > 96 * 0.4, 'small and large ones'
    assert cv2.imread(str(tmp_path / 'set/train/000039.png')).shape == (96, 96, 3)


def test_boxes_are_tight_on_the_visible_part(monkeypatch):
    """With plain textures the visible pixels of a shape are those that differ from an image drawn without it."""
    monkeypatch.setattr(
        shapes,
        '_texture',
        lambda rng, size, color, blotches, grain: np.full(
            (size, size, 3), 10.0 if blotches > 20 else 200.0, np.float32
        ),
    )
    monkeypatch.setattr(shapes, '_MAX_OBJECTS', 1)
    for seed in range(30):
        drawn = draw_image(np.random.default_rng(seed), 80)
        rows, columns = np.nonzero(drawn.pixels[..., 0] >= 105)  # half covered: 10 + 190 * 128 / 255
        x, y, width, height = drawn.boxes[0]
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + width, y + height)
        assert drawn.areas[0] == len(rows)


def test_no_shape_is_hidden_too_much():
    owner = np.full((64, 64), -1)
    owner[:32] = 0
    full_areas = [32 * 64]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        placed = shapes._place(rng, owner, list(full_areas), 64)
        if placed is not None:
            hidden = np.count_nonzero((placed[1] > 127) & (owner == 0))
            assert 1 - hidden / full_areas[0] >= shapes._MIN_VISIBLE


def test_an_equal_set_is_kept_and_another_replaced(tmp_path):
    root = tmp_path / 'set'
    assert generate_shapes(root, num_train=2, num_val=1, image_size=64)
    before = (root / 'train/000000.png').stat().st_mtime_ns
    assert not generate_shapes(root, num_train=2, num_val=1, image_size=64)
    assert (root / 'train/000000.png').stat().st_mtime_ns == before
    assert generate_shapes(root, num_train=3, num_val=1, image_size=64)
    assert len(list((root / 'train').iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ['set'], 'no temporary folder is left'


def test_breaking_off_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes.cv2, 'imwrite', fail)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / 'set', num_train=2, num_val=1, image_size=64)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'precious.txt').write_text('mine')
    with pytest.raises(UserError, match='not empty and holds no shapes.json'):
        generate_shapes(tmp_path, num_train=1, num_val=1)
    assert (tmp_path / 'precious.txt').read_text() == 'mine'


@pytest.mark.parametrize('field', ['num_train', 'num_val', 'image_size'])
def test_numbers_out_of_range_are_named(tmp_path, field):
    with pytest.raises(UserError, match=f'{field}=0 is too small'):
        generate_shapes(tmp_path / 'set', **{field: 0})


def test_the_data_set_draws_itself_and_warns_of_another(tmp_path):
    def build(number: int):
        return DATASETS.build(
            dict(
                type='mmcondetr.ShapesDataset',
                data_root=str(tmp_path / 'set'),
                ann_file='annotations/train.json',
                data_prefix=dict(img='train/'),
                generate=dict(num_train=number, num_val=1, image_size=64),
            )
        )

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(build(3)) == 3 and build(3).metainfo['classes'] == SHAPES_CLASSES
    with pytest.warns(UserWarning, match=r"holds a shapes data set with {'num_train': 3}.*specifies {'num_train': 4"):
        assert len(build(4)) == 3
