"""Where the mass of attention lies relative to a box: hand-made maps fall into the regions that they should."""

import json

import cv2
import numpy as np
import pytest
import torch
from tiny_files import write_model
from tiny_model import sample, tiny_config

from mmcondetr.errors import UserError
from mmcondetr.inference import load_detector
from mmcondetr.visualization.extremities import (
    BAND,
    REGIONS,
    ExtremityTable,
    cell_points,
    measure_extremities,
    region_shares,
)
from mmcondetr.visualization.extremity_report import plot_table, summarise, to_markdown, write_json
from mmcondetr.visualization.maps import TokenGrid

GRID = TokenGrid(shape=(20, 20), valid=(20, 20), input_shape=(200, 200), img_shape=(200, 200), ori_shape=(200, 200))
BOX = (60, 80, 140, 160)  # 80 pixels wide and high: bands reach 12 pixels to both sides of an edge


@pytest.mark.parametrize(
    'x, y, region',
    [
        (60, 120, 'left'),
        (51, 120, 'left'),
        (69, 120, 'left'),
        (140, 120, 'right'),
        (100, 80, 'top'),
        (100, 160, 'bottom'),
        (100, 120, 'inside'),
        (85, 100, 'inside'),
        (30, 120, 'outside'),
        (100, 195, 'outside'),
        (5, 5, 'outside'),
    ],
)
def test_a_token_falls_into_its_region(x, y, region):
    cells, _ = region_shares(BOX, GRID)
    shares = cells[:, y // 10, x // 10]
    assert REGIONS[int(shares.argmax())] == region
    assert shares.sum() == pytest.approx(1)


def test_regions_divide_the_image_and_chance_is_their_area():
    cells, chance = region_shares(BOX, GRID)
    np.testing.assert_allclose(cells.sum(axis=0), 1)
    assert chance.sum() == pytest.approx(1)
    inside, whole = (80 * (1 - BAND)) ** 2, (80 * (1 + BAND)) ** 2
    expected = [(whole - inside) / 4] * 4 + [inside, 200**2 - whole]
    np.testing.assert_allclose(chance, np.array(expected) / 200**2, atol=0.01)  # cells are looked at in 8 x 8 places


def test_a_flat_map_has_the_chance_level_also_where_the_grid_overlaps_the_image():
    """185 x 150 pixels in cells of 32: the last cells lie in the image in part only, and hold less area."""
    grid = TokenGrid((8, 8), (5, 6), (256, 256), (150, 185), (150, 185))
    cells, chance = region_shares((20, 30, 130, 149), grid)
    _, lengths = cell_points(185, 32.0, 6)
    assert lengths.tolist() == [32.0, 32.0, 32.0, 32.0, 32.0, 25.0]
    weights = np.outer(cell_points(150, 32.0, 5)[1], lengths)
    np.testing.assert_allclose((cells * weights / weights.sum()).sum(axis=(1, 2)), chance)


def test_flat_boxes_do_not_fail():
    cells, chance = region_shares((50, 50, 50, 50), GRID)
    assert np.isfinite(cells).all() and chance[5] > 0.9


@pytest.fixture
def table():
    shares = np.array([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.02, 0.03, 0.05, 0.1, 0.6, 0.2]])
    return ExtremityTable(3, 'spatial', shares, shares / 10, np.array([0.05, 0.05, 0.05, 0.05, 0.1, 0.7]), 40, 2, 10)


def test_report(table, tmp_path):
    assert [table.favourite(head) for head in (0, 1)] == ['left', 'inside']
    markdown = to_markdown(table).splitlines()
    assert markdown[2].startswith('| 0 | 50.0 (10.0x) | 10.0 (2.0x) |') and markdown[2].endswith('| 80.0 | left |')
    assert len({line.count('|') for line in markdown}) == 1
    assert 'edge bands contain 50.0% of the mass, chance 20.0%: 2.50 times chance' in summarise(table)
    assert summarise(table).endswith('Most above chance by head: 1 left, 1 inside.')
    wide = table._replace(chance=np.array([0.1, 0.1, 0.1, 0.05, 0.1, 0.55]))
    assert 'warning: the edge bands cover 35% of the image on average' in summarise(wide)
    plot_table(table, tmp_path / 'bars.png')
    assert cv2.imread(str(tmp_path / 'bars.png')).std() > 10
    write_json(table, tmp_path / 'table.json')
    assert json.loads((tmp_path / 'table.json').read_text())['shares'] == table.shares.tolist()


def test_the_command_measures_a_data_set(tmp_path, run_tool):
    config, checkpoint = write_model(tmp_path, tiny_config())
    rng = np.random.default_rng(0)
    images = [dict(id=i + 1, file_name=f'{i}.png', width=90, height=60) for i in range(2)]
    for image in images:
        cv2.imwrite(str(tmp_path / image['file_name']), rng.integers(0, 255, (60, 90, 3), dtype=np.uint8))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(('circle', 'triangle', 'square', 'star', 'ring'))]
    annotations = dict(images=images, annotations=[], categories=categories)
    (tmp_path / 'annotations.json').write_text(json.dumps(annotations))
    options = ('--min-tokens', 0, '--score-threshold', 0)
    done = run_tool('attention_extremities', config, checkpoint, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'extremities.json').read_text())
    assert found['detections'] == 24 and found['images'] == 2  # 12 queries each
    np.testing.assert_allclose(np.sum(found['shares'], axis=1), 1, atol=1e-5)


def test_nothing_to_measure(tmp_path):
    model = load_detector(*write_model(tmp_path, tiny_config()))
    item = dict(inputs=torch.zeros(3, 96, 128, dtype=torch.uint8), data_samples=sample((96, 128), (96, 128), [], []))
    with pytest.raises(UserError, match='Nothing to measure in 1 images: no detection scores 1.5 or more'):
        measure_extremities(model, [item], score_threshold=1.5)
    with pytest.raises(UserError, match="no attention map 'space': it can be spatial, content, combined"):
        measure_extremities(model, [item], kind='space')
