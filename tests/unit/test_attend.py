"""Images of every kind become the right picture or a clear message; detections are chosen and named."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_files import CLASSES, tiny_detr_config, write_model
from tiny_model import build, tiny_config

from mmcondetr.errors import UserError
from mmcondetr.inference import load_detector
from mmcondetr.visualization import attend, read_image


@pytest.fixture(scope='module')
def pixels():
    """40 x 60, BGR: red above, blue in the lower right quarter."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20] = (0, 0, 200)
    image[20:, 30:] = (180, 0, 0)
    return image


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return load_detector(*write_model(tmp_path_factory.mktemp('model'), tiny_config()))


def test_a_colour_image(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), pixels)
    np.testing.assert_array_equal(read_image(pixels), pixels)


def test_grayscale_becomes_three_equal_channels(tmp_path, pixels):
    grey = pixels[..., 2]
    cv2.imwrite(str(tmp_path / 'grey.png'), grey)
    for image in (tmp_path / 'grey.png', grey, grey[..., None]):
        np.testing.assert_array_equal(read_image(image), np.repeat(grey[..., None], 3, axis=2))


def test_alpha_is_dropped(tmp_path, pixels):
    alpha = np.concatenate([pixels, np.full((40, 60, 1), 30, np.uint8)], axis=2)
    cv2.imwrite(str(tmp_path / 'alpha.png'), alpha)
    for image in (tmp_path / 'alpha.png', alpha):
        np.testing.assert_array_equal(read_image(image), pixels)


def test_sixteen_bits_become_eight(tmp_path, pixels):
    deep = pixels.astype(np.uint16) * 256 + 7
    cv2.imwrite(str(tmp_path / 'deep.png'), deep)
    for image in (tmp_path / 'deep.png', deep):
        np.testing.assert_array_equal(read_image(image), pixels)


def test_exif_orientation_turns_the_image(tmp_path, pixels):
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / 'turned.jpg', exif=exif, quality=95, subsampling=0)
    found = read_image(tmp_path / 'turned.jpg').astype(int)
    assert found.shape == (60, 40, 3)
    assert abs(found - np.rot90(pixels, -1).astype(int)).mean() < 4


@pytest.mark.parametrize(
    'content, message',
    [(b'', 'not an image'), (b'<html>no</html>', 'not an image'), (b'\xff\xd8\xff\xe0' + bytes(50), 'truncated')],
)
def test_files_that_are_no_image(tmp_path, content, message):
    (tmp_path / 'bad.jpg').write_bytes(content)
    with pytest.raises(UserError, match=rf"bad\.jpg'.*{message}"):
        read_image(tmp_path / 'bad.jpg')


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"none\.png' does not exist"):
        read_image(tmp_path / 'none.png')
    with pytest.raises(UserError, match='it is a folder'):
        read_image(tmp_path)


@pytest.mark.parametrize(
    'array', [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)]
)
def test_arrays_of_the_wrong_kind(array):
    with pytest.raises(UserError, match='An image array must be'):
        read_image(array)


def test_boxes_are_in_the_original_images_pixels(model):
    """The same picture twice as large gives boxes twice as large: a flat one is resized to the same input."""
    small, twice = (attend(model, np.full((height, width, 3), 77, np.uint8)) for height, width in ((40, 60), (80, 120)))
    assert small.attention.grid.ori_shape == (40, 60) and small.attention.grid.img_shape == (85, 128)
    torch.testing.assert_close(twice.attention.boxes, 2 * small.attention.boxes, rtol=0, atol=1e-3)
    assert small.attention.boxes[-1].std() > 1


def test_the_best_detections(model, pixels):
    attended = attend(model, pixels)
    found = attended.best_detections(3)
    scores = attended.attention.scores[-1].max(dim=-1).values
    assert [detection.score for detection in found] == pytest.approx(scores.sort(descending=True).values[:3].tolist())
    assert found[0].name == CLASSES[found[0].label]
    assert attended.detection(found[1].query) == found[1]


def test_nothing_above_the_threshold_names_the_best(model, pixels):
    attended = attend(model, pixels)
    best = attended.best_detections(1)[0]
    with pytest.raises(UserError, match=rf'threshold 1.5; the best is {best.name} with .* of query {best.query}\.'):
        attended.best_detections(3, score_threshold=1.5)


def test_a_query_that_is_not_there(model, pixels):
    for query in (12, -1):
        with pytest.raises(UserError, match=f'no query {query}: this model has 12, numbered 0 to 11'):
            attend(model, pixels).detection(query)


def test_a_model_without_a_config(pixels):
    with pytest.raises(UserError, match="no attribute 'cfg'"):
        attend(build(tiny_config()), pixels)


@pytest.mark.parametrize('config', [tiny_config, tiny_detr_config], ids=['ours', 'detr'])
def test_a_checkpoint_that_does_not_fit(tmp_path, config):
    path, checkpoint = write_model(tmp_path, config())
    state = torch.load(checkpoint, weights_only=False)
    state['state_dict']['query_embedding.weight'] = torch.zeros(7, 32)
    torch.save(state, tmp_path / 'wrong.pth')
    with pytest.raises(UserError, match='(?s)does not fit.*query_embedding.weight'):
        load_detector(path, str(tmp_path / 'wrong.pth'))
    with pytest.raises(UserError, match=r"none\.pth' does not exist"):
        load_detector(path, str(tmp_path / 'none.pth'))


def test_class_names_come_from_the_data_set_where_the_checkpoint_has_none(tmp_path):
    path, checkpoint = write_model(tmp_path, tiny_config())
    state = torch.load(checkpoint, weights_only=False)
    torch.save(dict(state_dict=state['state_dict']), checkpoint)
    assert tuple(load_detector(path, checkpoint).dataset_meta['classes']) == CLASSES
