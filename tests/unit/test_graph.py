"""The graph that is exported, still in PyTorch: masks from tensors, and the detections of the eager model."""

import pytest
import torch
import torch.nn.functional as F
from exported import PREPROCESSOR, blocky_image, least
from tiny_model import build, tiny_config
from tiny_variants import VARIANTS, tiny_variant

from mmcondetr.errors import UserError
from mmcondetr.export.graph import DetectionGraph, outside
from mmcondetr.export.verifying import _differences, _run_torch
from mmcondetr.runtime.images import stack_images


@pytest.mark.parametrize('size', [(96, 128), (97, 61), (801, 1066), (33, 700)])
@pytest.mark.parametrize('stride', [16, 32])
def test_the_mask_is_what_interpolation_gives(size, stride):
    grid = tuple(-(-side // stride) for side in size)
    generator = torch.Generator().manual_seed(0)
    valid = torch.stack([torch.randint(1, side + 1, (200,), generator=generator) for side in size], dim=1)
    pixels = outside(size, size, valid)
    expected = torch.ones(200, *size, dtype=torch.bool)
    for mask, (height, width) in zip(expected, valid.tolist()):
        mask[:height, :width] = False
    assert torch.equal(pixels, expected)
    assert torch.equal(outside(size, grid, valid), F.interpolate(pixels[:, None].float(), size=grid)[:, 0].bool())


@pytest.mark.parametrize('changes', [{}, dict(bgr_to_rgb=False), dict(mean=None, std=None)])
@pytest.mark.parametrize('clip', [False, True])
def test_it_detects_what_the_eager_model_detects_in_a_padded_batch(changes, clip):
    config = tiny_config()
    config['data_preprocessor'] = {**PREPROCESSOR, **changes}
    config['test_cfg'] = dict(max_per_img=20, clip_boxes=clip)
    assert_same_detections(build(config))


@pytest.mark.parametrize('path', VARIANTS, ids=lambda path: path.stem)
def test_every_system_and_ablation_does(path):
    assert_same_detections(build(least(tiny_variant(path))))


def assert_same_detections(model):
    images = [blocky_image(96, 130), blocky_image(77, 100, seed=1)]
    batch, sizes = stack_images(images)
    batch[1, :, 77:] = 200  # what lies beyond an image must not count
    originals = 2 * sizes
    tensors = [torch.from_numpy(x) for x in (batch, sizes, originals)]
    found = [x.numpy() for x in DetectionGraph(model)(*tensors)]
    for index, wanted in enumerate(_run_torch(model, images, originals)):
        boxes, scores, _ = _differences(wanted, [x[index] for x in found], originals[index])
        assert boxes <= 1e-5 and scores <= 1e-5
    spread = found[1][:, 0] - found[1][:, -1]
    assert spread.min() > 1e-3  # or every order of detections would do


def test_it_leaves_the_detector_as_it_was():
    model = build(tiny_config())
    before = {name: type(module) for name, module in model.named_modules()}
    DetectionGraph(model)
    assert {name: type(module) for name, module in model.named_modules()} == before


def test_another_packages_detector_is_refused():
    from tiny_files import tiny_detr_config

    with pytest.raises(UserError, match=r'mmdet\.models\.detectors\.detr\.DETR cannot be exported'):
        DetectionGraph(build(tiny_detr_config()))


def test_classes_that_were_never_trained_are_refused():
    model = build(tiny_config())
    model.untrained_classes = 'Rows of cat.'
    with pytest.raises(UserError, match='Rows of cat'):
        DetectionGraph(model)
