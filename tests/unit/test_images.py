"""The runner's preprocessing is the test pipeline's, pixel for pixel; what is no image is named."""

import cv2
import mmcv
import numpy as np
import pytest
import torch
from exported import PREPROCESSOR, blocky_image
from mmdet.registry import MODELS

from mmcondetr.errors import UserError
from mmcondetr.registry import TRANSFORMS
from mmcondetr.runtime.images import list_images, read_image, resize_image, stack_images
from mmcondetr.runtime.metadata import Resize


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    """A JPEG with an EXIF orientation, so that reading has to turn it."""
    folder = tmp_path_factory.mktemp('photo')
    image = blocky_image(93, 141)
    image += np.random.default_rng(0).integers(0, 20, image.shape, dtype=np.uint8)
    done, data = cv2.imencode('.jpg', image)
    exif = b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0'
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    path = folder / 'photo.jpg'
    path.write_bytes(data.tobytes()[:2] + segment + data.tobytes()[2:])
    return path


@pytest.mark.parametrize(
    'options',
    [
        dict(scale=(133, 80), keep_ratio=True),
        dict(scale=(40, 400), keep_ratio=True),
        dict(scale=(333, 333), keep_ratio=True, interpolation='bicubic'),
        dict(scale=(120, 50), keep_ratio=False),
        dict(scale=(71, 77), keep_ratio=True, interpolation='area'),
        None,
    ],
)
@pytest.mark.parametrize('divisor', [1, 32])
def test_it_is_the_test_pipelines_pixel_for_pixel(photo, options, divisor):
    steps = [dict(type='mmcondetr.LoadImage')] + ([dict(type='mmdet.Resize', **options)] if options else [])
    steps.append(dict(type='mmdet.PackDetInputs'))
    data = dict(img_path=str(photo), img_id=0)
    for step in steps:
        data = TRANSFORMS.build(step)(data)
    preprocessor = MODELS.build({**PREPROCESSOR, 'mean': None, 'std': None, 'pad_size_divisor': divisor})
    wanted = preprocessor(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]))

    rule = Resize(**{'interpolation': 'bilinear', **options}) if options else None
    image = read_image(photo)
    assert image.shape == (141, 93, 3)  # turned
    batch, sizes = stack_images([resize_image(image, rule)], divisor)
    assert torch.equal(torch.from_numpy(batch).float(), wanted['inputs'])
    assert tuple(sizes[0]) == data['data_samples'].img_shape
    assert data['data_samples'].ori_shape == image.shape[:2]


def test_images_of_different_sizes_share_a_batch():
    images = [blocky_image(20, 50), blocky_image(40, 30, seed=1)]
    batch, sizes = stack_images(images)
    assert batch.shape == (2, 3, 40, 50) and sizes.tolist() == [[20, 50], [40, 30]]
    assert np.array_equal(batch[1, :, :40, :30].transpose(1, 2, 0)[..., ::-1], images[1])
    assert not batch[0, :, 20:].any() and not batch[1, :, :, 30:].any()


def test_what_is_no_image_is_one_line(photo, tmp_path):
    (tmp_path / 'note.jpg').write_text('hello')
    (tmp_path / 'half.jpg').write_bytes(photo.read_bytes()[:900])
    (tmp_path / 'empty.png').write_bytes(b'')
    for name, message in (
        ('note.jpg', "note.jpg' is not an image"),
        ('half.jpg', "half.jpg' is truncated"),
        ('empty.png', "empty.png' is not an image"),
        ('gone.jpg', "gone.jpg' cannot be read: No such file"),
    ):
        with pytest.raises(UserError, match=message):
            read_image(tmp_path / name)
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UserError, match='must be .height, width, 3. uint8'):
            read_image(wrong)
    with pytest.raises(UserError, match='path or an array, not a int'):
        read_image(3)
    with pytest.raises(UserError, match='too thin'):
        resize_image(np.zeros((1, 5000, 3), np.uint8), Resize((50, 50), True, 'bilinear'))


def test_a_folder_lists_its_images_and_an_empty_one_is_refused(photo, tmp_path):
    assert list_images(photo) == list_images(photo.parent) == [photo]
    with pytest.raises(UserError, match='contains no image'):
        list_images(tmp_path)
    with pytest.raises(UserError, match='neither an image nor a folder'):
        list_images(tmp_path / 'gone')


def test_opencv_is_mmcvs_decoder(photo):
    assert np.array_equal(mmcv.imfrombytes(photo.read_bytes()), read_image(photo))
