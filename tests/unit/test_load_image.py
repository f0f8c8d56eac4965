"""Images with an EXIF rotation: read rotated, with one warning if they have annotations."""

import logging

import numpy as np
import pytest
from PIL import Image

from mmcondetr.datasets.load_image import LoadImage
from mmcondetr.errors import UserError


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(LoadImage, '_warned', False)


def write(path, orientation: int | None):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return str(path)


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr('mmcondetr.datasets.load_image.print_log', lambda line, *level: lines.append((line, level)))
    return lines


def test_a_turned_image_of_a_data_set_is_named_once(tmp_path, logged):
    path = write(tmp_path / 'turned.jpg', 6)
    for _ in range(2):
        loaded = LoadImage().transform(dict(img_path=path, ann_file='boxes.json', height=16, width=8))
    assert loaded['img_shape'] == (16, 8) and loaded['img'][0].mean() > 200  # OpenCV has turned it
    ((line, (_, level)),) = logged
    assert 'turned.jpg' in line and 'boxes.json' in line and 'orientation 6' in line and level == logging.WARNING


@pytest.mark.parametrize('orientation', [None, 1])
def test_an_upright_image_is_not(tmp_path, logged, orientation):
    LoadImage().transform(dict(img_path=write(tmp_path / 'upright.jpg', orientation), height=8, width=16))
    assert not logged


def test_nor_is_an_image_without_boxes_or_one_that_is_not_turned(tmp_path, logged):
    path = write(tmp_path / 'turned.jpg', 6)
    LoadImage().transform(dict(img_path=path))
    stored = LoadImage(color_type='color_ignore_orientation').transform(dict(img_path=path, height=8, width=16))
    assert stored['img_shape'] == (8, 16) and not logged


def test_damaged_exif_is_no_reason_to_stop(tmp_path, logged):
    path = tmp_path / 'damaged.jpg'
    data = bytearray(open(write(path, 6), 'rb').read())
    start = data.index(b'Exif') + 6
    data[start : start + 12] = b'\xff' * 12
    path.write_bytes(data)
    assert LoadImage().transform(dict(img_path=str(path), height=8, width=16))['img_shape'] == (8, 16) and not logged


def test_swapped_sizes_are_an_error_that_names_the_file_and_the_command(tmp_path):
    path = write(tmp_path / 'lying.jpg', None)
    with pytest.raises(UserError, match=r"lying.jpg' is 16x8 pixels.*boxes.json.*8x16.*swapped there.*--image-sizes"):
        LoadImage().transform(dict(img_path=path, ann_file='boxes.json', height=16, width=8))
