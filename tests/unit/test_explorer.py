"""The explorer page contains the model's results and makes no network requests."""

import base64
import gzip
import json
import re

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector
from tiny_files import tiny_detr_config, write_model
from tiny_masks import with_masks
from tiny_model import tiny_config

from mmcondetr.cli import main
from mmcondetr.errors import UserError
from mmcondetr.inference import load_detector
from mmcondetr.visualization import attend, write_explorer


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return load_detector(*write_model(tmp_path_factory.mktemp('model'), tiny_config()))


@pytest.fixture(scope='module')
def pixels():
    return np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


def data_of(path):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)[1])


def test_maps_come_back_within_the_quantisation(model, pixels, tmp_path):
    """A byte holds 255 sqrt(weight / peak): half a step is at most (1 / 255) of the peak."""
    found = write_explorer(model, pixels, tmp_path / 'e.html', score_threshold=0, count=4)
    data = data_of(tmp_path / 'e.html')
    shape = (4, 3, 3, 4, data['grid']['rows'], data['grid']['columns'])
    maps = np.frombuffer(gzip.decompress(base64.b64decode(data['maps'])), np.uint8).reshape(shape)
    peaks = np.frombuffer(base64.b64decode(data['peaks']), '<f4').reshape(shape[:4])
    attention = attend(model, pixels).attention
    for layer in range(3):
        expected = attention.maps(layer, [detection.query for detection in found])
        for kind, weights in enumerate((expected.spatial, expected.content, expected.combined)):
            peak = peaks[:, layer, kind, :, None, None]
            np.testing.assert_allclose((maps[:, layer, kind] / 255.0) ** 2, weights.numpy() / peak, atol=1 / 255)
    assert [one['query'] for one in data['detections']] == [one.query for one in found]
    np.testing.assert_allclose(data['detections'][1]['layers'][2]['box'], found[1].box, atol=0.01)


def test_nothing_is_loaded_from_outside(model, pixels, tmp_path):
    write_explorer(model, pixels, tmp_path / 'e.html', score_threshold=0)
    text = (tmp_path / 'e.html').read_text()
    assert not re.findall(r'https?://(?!www\.w3\.org/2000/svg)', text)
    assert "default-src 'none'" in text and '/*{' not in text
    assert not re.findall(r'<(?:link|script|img)[^>]+(?:href|src)="(?!data:|")', text)


def test_names_cannot_break_out_of_the_page(model, pixels, tmp_path):
    title = '</script><script>alert(1)</script>'
    write_explorer(model, pixels, tmp_path / 'e.html', score_threshold=0, title=title)
    assert '<script>alert' not in (tmp_path / 'e.html').read_text()
    assert data_of(tmp_path / 'e.html')['title'] == title


def test_the_first_layers_content_map_says_what_it_includes(model, pixels, tmp_path):
    write_explorer(model, pixels, tmp_path / 'e.html', query=2)
    notes = data_of(tmp_path / 'e.html')['notes']
    assert 'positions are added' in notes['0'][1] and 'positions' not in notes['1'][1]


def test_chosen_layers_and_detr(pixels, tmp_path):
    detr = load_detector(*write_model(tmp_path, tiny_detr_config()))
    found = write_explorer(detr, pixels, tmp_path / 'e.html', layers=[0, -1], score_threshold=0, count=2)
    data = data_of(tmp_path / 'e.html')
    assert len(found) == 2 and data['layers'] == [0, 2] and len(data['detections'][0]['layers']) == 2
    assert data['detections'][0]['layers'][0]['reference'] is None and 'DETR adds' in data['notes']['0'][0]


def test_a_large_image_is_made_smaller_in_the_page(model, tmp_path):
    pixels = np.full((400, 3000, 3), 90, np.uint8)
    write_explorer(model, pixels, tmp_path / 'e.html', query=0)
    data = data_of(tmp_path / 'e.html')
    assert (data['image']['width'], data['image']['height']) == (3000, 400)
    assert data['image']['src'].startswith('data:image/jpeg') and len(data['image']['src']) < 100_000


def test_the_page_does_not_grow_without_bound(model, pixels, tmp_path, monkeypatch):
    monkeypatch.setattr('mmcondetr.visualization.explorer.LARGEST_MAPS', 3 * (3 * 3 * 4 * 12))  # 3 x 4 tokens
    assert len(write_explorer(model, pixels, tmp_path / 'e.html', score_threshold=0)) == 3


def test_the_page_begins_at_the_threshold_and_holds_all_above_the_floor(model, pixels, tmp_path, monkeypatch):
    scores = attend(model, pixels).attention.scores[-1].max(dim=-1).values
    monkeypatch.setattr('mmcondetr.visualization.explorer.FLOOR', float(scores.median()))
    found = write_explorer(model, pixels, tmp_path / 'e.html', score_threshold=float(scores.max()))
    data = data_of(tmp_path / 'e.html')
    assert len(found) == len(data['detections']) == int((scores >= scores.median()).sum()) > 1
    assert data['threshold'] == int(100 * float(scores.max())) / 100
    write_explorer(model, pixels, tmp_path / 'e.html', score_threshold=0.99)  # which none reaches
    assert data_of(tmp_path / 'e.html')['threshold'] == int(100 * float(scores.max())) / 100


def test_nothing_found(model, pixels, tmp_path, monkeypatch):
    monkeypatch.setattr('mmcondetr.visualization.explorer.FLOOR', 2)
    with pytest.raises(UserError, match='No detection reaches'):
        write_explorer(model, pixels, tmp_path / 'e.html', score_threshold=2)
    assert not list(tmp_path.glob('*.html'))


def test_the_explain_command_writes_the_page(tmp_path, capsys):
    files = write_model(tmp_path, tiny_config())
    cv2.imwrite(str(tmp_path / 'photo.png'), np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8))
    out = tmp_path / 'page.html'
    command = ['explain', *files, str(tmp_path / 'photo.png'), '--out', str(out), '--score-threshold', '0']
    assert main([*command, '--count', '3']) == 0
    assert capsys.readouterr().out.count('query ') == 3 and '<script' in out.read_text()


def test_masks_are_a_layer_of_the_page_where_the_model_has_them(model, pixels, tmp_path):
    masked = load_detector(*write_model(tmp_path, with_masks(tiny_config())))
    found = write_explorer(masked, pixels, tmp_path / 'masks.html', score_threshold=0, count=3)
    with torch.no_grad():
        expected = masks_of_detections(masked, pixels, [detection.query for detection in found])
    pictures = [detection['mask'] for detection in data_of(tmp_path / 'masks.html')['detections']]
    for picture, mask in zip(pictures, expected):
        encoded = np.frombuffer(base64.b64decode(picture.split(',')[1]), np.uint8)
        assert ((cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)[..., 3] > 0) == mask).all()
    assert len(pictures) == 3 and 0 < expected.mean() < 1
    write_explorer(model, pixels, tmp_path / 'plain.html', score_threshold=0, count=3)
    assert not any('mask' in detection for detection in data_of(tmp_path / 'plain.html')['detections'])


def masks_of_detections(model, pixels, queries):
    """By another way: what the detector predicts for these queries, each with its best class."""
    model.bbox_head.max_per_img = 10_000
    original = model.bbox_head.predict
    results = []
    model.bbox_head.predict = lambda *args, **kwargs: results.append(original(*args, **kwargs)) or results[0]
    found = inference_detector(model, pixels).pred_instances
    where = results[0][0].queries.tolist()
    return np.stack([found.masks[where.index(query)].numpy() for query in queries])
