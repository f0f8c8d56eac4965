"""Detector: images of every kind become arrays; batches, tiles, pictures and errors."""

import cv2
import numpy as np
import pytest
from mmdet.apis import inference_detector
from PIL import Image
from tiny_files import CLASSES, write_model
from tiny_masks import with_masks
from tiny_model import tiny_config

import mmcondetr
from mmcondetr.errors import UserError
from mmcondetr.inference.tiles import is_cut, merge_tiles, tile_windows


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('model'), tiny_config())


@pytest.fixture(scope='module')
def detector(files):
    return mmcondetr.Detector(*files, device='cpu')


def make_pixels(height=60, width=90, seed=0):
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 9, 3)).astype(np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)


def same(a, b, tolerance=1e-3):
    np.testing.assert_allclose(a.xyxy, b.xyxy, atol=tolerance)
    np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-5)
    assert a.class_id.tolist() == b.class_id.tolist()


def test_it_finds_what_mmdets_inference_finds(detector):
    pixels = make_pixels()
    found = detector.predict(pixels, score_threshold=0, clip=False)
    expected = inference_detector(detector.model, pixels).pred_instances
    order = expected.scores.argsort(descending=True, stable=True)
    assert len(found) == 20 == len(order)
    np.testing.assert_allclose(found.boxes, expected.bboxes[order].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores[order].numpy(), atol=1e-6)
    assert found.labels.tolist() == expected.labels[order].tolist()
    assert found.names == [CLASSES[label] for label in found.labels]
    assert (found.xyxy.dtype, found.confidence.dtype, found.class_id.dtype) == (np.float32, np.float32, np.int64)


def test_every_kind_of_image_is_the_same_image(detector, tmp_path):
    pixels = make_pixels()
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    rgb = np.ascontiguousarray(pixels[..., ::-1])
    expected = detector.predict(pixels, score_threshold=0)
    given = [tmp_path / 'a.png', str(tmp_path / 'a.png'), Image.fromarray(rgb), pixels]
    for found in (*detector.predict(given, 0.0), detector.predict(rgb, 0.0, channel_order='rgb')):
        same(found, expected)
    assert not np.allclose(detector.predict(rgb, 0.0).confidence, expected.confidence, atol=1e-5)
    assert detector.predict(given[1]).path == given[1] and detector.predict(pixels).path is None


def test_the_result_does_not_depend_on_the_batch(detector):
    images = [make_pixels(60, 90, 1), make_pixels(90, 60, 2), make_pixels(60, 90, 3), make_pixels(60, 80, 4)]
    alone = [detector.predict(image, 0.0) for image in images]
    for one, many in zip(alone, detector.predict(images, 0.0, batch_size=3)):
        same(one, many)
    assert detector.predict([]) == []


@pytest.fixture
def wide(files):
    """A detector whose boxes extend beyond the image."""
    detector = mmcondetr.Detector(*files, device='cpu')
    detector.model.bbox_head.box_embed.layers[-1].bias.data[2:] += 4
    return detector


def test_boxes_are_clipped_and_thresholds_hold(wide):
    detector, pixels = wide, make_pixels()
    raw = detector.predict(pixels, 0.0, clip=False)
    clipped = detector.predict(pixels, 0.0)
    assert raw.xyxy.min() < 0 and raw.xyxy[:, 2].max() > 90 and raw.xyxy[:, 3].max() > 60
    np.testing.assert_array_equal(clipped.xyxy, raw.xyxy.clip(0, [90, 60, 90, 60]))
    limit = float(np.median(raw.confidence))
    chosen = detector.predict(pixels, limit)
    assert 0 < len(chosen) < len(raw) and chosen.confidence.min() >= limit
    assert len(raw.above(limit)) == len(chosen) and clipped.size == (90, 60)


def test_the_picture_shows_the_boxes(detector, tmp_path):
    pixels = make_pixels(480, 640)
    found = detector.predict(pixels, 0.0)
    picture = found.plot(tmp_path / 'new' / 'out.png')
    assert picture.size == (640, 480) and (np.asarray(picture)[..., ::-1] != pixels).any()
    assert cv2.imread(str(tmp_path / 'new' / 'out.png')).shape == (480, 640, 3)
    nothing = found.above(1.0)
    np.testing.assert_array_equal(np.asarray(nothing.plot())[..., ::-1], pixels)
    with pytest.raises(UserError, match='out.what.*cannot be written'):
        found.plot(tmp_path / 'out.what')
    assert found.data['class_name'].tolist() == found.names == found.to_dict()['names']


def test_what_cannot_be_is_said(detector, files, tmp_path):
    with pytest.raises(UserError, match="gone.png' does not exist"):
        detector.predict(tmp_path / 'gone.png')
    with pytest.raises(UserError, match='path, a numpy array or a PIL image, got int'):
        detector.predict(3)
    with pytest.raises(UserError, match="channel_order must be 'bgr' or 'rgb'"):
        detector.predict(make_pixels(), channel_order='RGB')
    with pytest.raises(UserError, match='batch_size must be at least 1'):
        detector.predict(make_pixels(), batch_size=0)
    with pytest.raises(UserError, match='score_threshold must be from 0 to 1, got 30'):
        detector.predict(make_pixels(), 30)
    with pytest.raises(UserError, match='at least 32 pixels'):
        detector.predict(make_pixels(), tile=8)
    with pytest.raises(UserError, match="optimize must be one of .* got 'int8'"):
        mmcondetr.Detector(*files, optimize='int8')


def test_an_optimised_detector_finds_the_same(files, detector):
    fast = mmcondetr.Detector(files[0], files[1], device='cpu', optimize='fp32')
    same(fast.predict(make_pixels(), 0.0), detector.predict(make_pixels(), 0.0), 1e-2)


@pytest.mark.parametrize('width, height, side, overlap', [(100, 80, 64, 0.2), (640, 480, 100, 0.25), (50, 300, 64, 0)])
def test_tiles_cover_the_image_and_overlap(width, height, side, overlap):
    covered = np.zeros((height, width), int)
    windows = tile_windows(width, height, side, overlap)
    for x1, y1, x2, y2 in windows:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(side, width), min(side, height))
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1
    columns = sorted({window[0] for window in windows})
    assert all(b - a <= side * (1 - overlap) + 1 for a, b in zip(columns, columns[1:]))
    assert tile_windows(30, 20, 64) == [(0, 0, 30, 20)]


def test_one_object_in_two_tiles_is_found_once():
    windows = [(0, 0, 100, 100), (80, 0, 180, 100)]
    boxes = np.array([[70, 10, 100, 40], [82, 10, 120, 40], [80, 60, 110, 90], [71, 11, 120, 40]], np.float32)
    origin = np.array([0, 1, 1, 2])  # tile 2 is the whole image
    cut = np.concatenate([is_cut(boxes[:1], windows[0], 180, 100), is_cut(boxes[1:3], windows[1], 180, 100), [False]])
    assert cut.tolist() == [True, True, True, False]
    scores, labels = np.array([0.9, 0.95, 0.5, 0.6]), np.array([1, 1, 1, 1])
    assert merge_tiles(boxes, scores, labels, origin, cut).tolist() == [3, 2]  # the whole box wins over its parts
    assert merge_tiles(boxes, scores, np.array([1, 2, 1, 3]), origin, cut).tolist() == [1, 0, 3, 2]
    same_tile = np.zeros(4, int)
    assert merge_tiles(boxes, scores, labels, same_tile, cut).tolist() == [1, 0, 3, 2]
    assert merge_tiles(boxes[:0], scores[:0], labels[:0], origin[:0], cut[:0]).tolist() == []


def test_tiles_add_to_what_the_whole_image_gives(detector):
    pixels = make_pixels(120, 200)
    whole = detector.predict(pixels, 0.0, clip=False)
    tiled = detector.predict(pixels, 0.0, clip=False, tile=64, batch_size=4)
    assert len(tiled) > len(whole)
    assert tiled.confidence.tolist() == sorted(tiled.confidence.tolist(), reverse=True)
    small = make_pixels(60, 60)
    same(detector.predict(small, 0.0, tile=64), detector.predict(small, 0.0))


def test_masks_go_along_with_their_boxes(detector, tmp_path):
    masked = mmcondetr.Detector(*write_model(tmp_path, with_masks(tiny_config())), device='cpu')
    pixels = make_pixels()
    found = masked.predict(pixels, score_threshold=0)
    expected = inference_detector(masked.model, pixels).pred_instances
    order = expected.scores.argsort(descending=True, stable=True)
    assert found.mask.shape == (20, 60, 90) and found.mask.dtype == bool and 0 < found.mask.mean() < 1
    assert (found.mask == expected.masks[order].numpy()).all()
    best = found.keep([3, 0])
    assert (best.mask == found.mask[[3, 0]]).all()
    plain = detector.predict(pixels, score_threshold=0)
    assert plain.mask is None and plain.keep([0]).mask is None
    inside = np.array(found.keep([0]).plot(captions=False))[found.mask[0]].astype(int)
    assert np.abs(inside - pixels[found.mask[0]][:, ::-1]).mean() > 5, 'it is tinted'
    assert masked.predict(pixels, score_threshold=1, tile=64).mask.shape == (0, 60, 90)


def test_a_panoptic_map_is_the_model_s_and_is_drawn(tmp_path):
    panoptic = dict(num_classes=5, num_things=3, score_threshold=0.012)
    merged = mmcondetr.Detector(*write_model(tmp_path, with_masks(tiny_config(), panoptic=panoptic)), device='cpu')
    pixels = make_pixels()
    found = merged.predict(pixels, score_threshold=1)
    expected = inference_detector(merged.model, pixels).pred_panoptic_seg.sem_seg[0].numpy()
    assert merged.num_things == 3 and len(found) == 0 and (found.panoptic == expected).all()
    assert len(np.unique(expected)) > 1
    assert (merged.predict(pixels, score_threshold=1, tile=64).panoptic == expected).all()
    drawn, plain = np.array(found.plot(captions=False)), pixels[..., ::-1].astype(int)
    borders = np.zeros(expected.shape, bool)
    borders[:-1] |= expected[:-1] != expected[1:]
    borders[:, :-1] |= expected[:, :-1] != expected[:, 1:]
    assert borders.any() and (drawn[borders] == 255).all()
    inside = ~borders & (expected % 1000 < 5)
    assert np.abs(drawn[inside] - plain[inside]).mean() > 5, 'it is tinted'
    assert (np.array(found.plot()) != drawn).any(), 'with names'


def test_predictions_that_are_not_finite_are_one_line(tmp_path):
    broken = mmcondetr.Detector(*write_model(tmp_path, tiny_config()), device='cpu')
    broken.model.decoder.norm.weight.data.fill_(float('nan'))
    with pytest.raises(UserError, match='predictions are NaN or infinite'):
        broken.predict(make_pixels())


def test_masks_of_tiles_lie_where_their_tile_does(tmp_path):
    masked = mmcondetr.Detector(*write_model(tmp_path, with_masks(tiny_config())), device='cpu')
    pixels = make_pixels(70, 100)
    views = [(0, 0, 100, 70), *tile_windows(100, 70, 64)]
    expected = {}
    for x1, y1, x2, y2 in views:
        found = masked.predict(pixels[y1:y2, x1:x2], 0.0, clip=False)
        for box, mask in zip(found.xyxy, found.mask):
            whole = np.zeros((70, 100), bool)
            whole[y1:y2, x1:x2] = mask
            expected[tuple((box + [x1, y1, x1, y1]).round(2))] = whole
    found = masked.predict(pixels, 0.0, clip=False, tile=64)
    assert len(found) > 20 and found.mask.shape == (len(found), 70, 100)
    for box, mask in zip(found.xyxy, found.mask):
        assert (mask == expected[tuple(box.astype(float).round(2))]).all()
    limit = float(np.median(found.confidence))
    best = masked.predict(pixels, limit, clip=False, tile=64)
    assert 0 < len(best) < len(found) and (best.mask == found.mask[found.confidence >= limit]).all()
