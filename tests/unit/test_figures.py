"""The pictures are written and show what they should; failures have a message."""

import cv2
import numpy as np
import pytest
from tiny_files import tiny_detr_config, write_model
from tiny_model import tiny_config

from mmcondetr.errors import UserError
from mmcondetr.inference import load_detector
from mmcondetr.visualization import draw_attention, draw_comparison


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return load_detector(*write_model(tmp_path_factory.mktemp('model'), tiny_config()))


@pytest.fixture(scope='module')
def detr(tmp_path_factory):
    return load_detector(*write_model(tmp_path_factory.mktemp('detr'), tiny_detr_config()))


@pytest.fixture(scope='module')
def pixels():
    return np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


def size_of(path):
    return cv2.imread(str(path)).shape[1::-1]


def test_a_row_for_each_kind_and_a_column_for_each_head(model, pixels, tmp_path):
    found = draw_attention(model, pixels, tmp_path / 'all.png', score_threshold=0)
    assert len(found) == 1
    draw_attention(model, pixels, tmp_path / 'two.png', score_threshold=0, heads=[0, 2])
    draw_attention(model, pixels, tmp_path / 'more.png', score_threshold=0, count=2)
    (width, height), (fewer, _), (_, taller) = (size_of(tmp_path / f'{n}.png') for n in ('all', 'two', 'more'))
    assert width - fewer == pytest.approx(2 * 1.55 * 110, abs=3)
    assert taller - height == pytest.approx(3 * 1.55 * 60 / 90 * 110, abs=3)


def test_the_chosen_query_and_layer_are_drawn(model, pixels, tmp_path):
    assert [one.query for one in draw_attention(model, pixels, tmp_path / 'a.png', query=5, layer=0)] == [5]
    draw_attention(model, pixels, tmp_path / 'b.png', query=5, layer=-1)
    assert (cv2.imread(str(tmp_path / 'a.png')) != cv2.imread(str(tmp_path / 'b.png'))).any()


def test_detr_is_drawn_too(detr, pixels, tmp_path):
    draw_attention(detr, pixels, tmp_path / 'detr.png', query=0)
    assert min(size_of(tmp_path / 'detr.png')) > 300


def test_comparison_shows_the_same_object(model, detr, pixels, tmp_path):
    models = [('Conditional DETR', model), ('DETR', detr)]
    found = draw_comparison(models, pixels, tmp_path / 'c.png', score_threshold=0)
    assert len(found) == 2 and size_of(tmp_path / 'c.png')[1] > 200
    same = draw_comparison([('one', model), ('other', model)], pixels, tmp_path / 'd.png', query=3)
    assert [one.query for one in same] == [3, 3]


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(query=12), 'no query 12'),
        (dict(layer=3), 'no decoder layer 3'),
        (dict(heads=[4], query=0), 'no head 4: this model has 4, numbered 0 to 3'),
        (dict(score_threshold=2.0), 'No detection reaches the score threshold 2'),
    ],
)
def test_wrong_choices(model, pixels, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        draw_attention(model, pixels, tmp_path / 'x.png', **options)
    with pytest.raises(UserError, match=message):
        draw_comparison([('a', model), ('b', model)], pixels, tmp_path / 'x.png', **options)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_picture(model, pixels, tmp_path):
    with pytest.raises(UserError, match=r"Cannot write '.*picture\.doc': pictures can be .*png"):
        draw_attention(model, pixels, tmp_path / 'picture.doc', query=0)


def test_the_command_draws_and_refuses(tmp_path, pixels, run_tool):
    config, checkpoint = write_model(tmp_path, tiny_config())
    cv2.imwrite(str(tmp_path / 'image.png'), pixels)
    files = ('image.png', config, checkpoint)
    done = run_tool('visualize_attention', *files, '--query', 3, '--heads', 0, 1, '--html', 'e.html', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'query 3: ' in done.stdout and (tmp_path / 'attention_image.png').stat().st_size > 1000
    assert (tmp_path / 'e.html').stat().st_size > 10000
    done = run_tool('visualize_attention', *files, '--query', 33, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == 'error: There is no query 33: this model has 12, numbered 0 to 11.'
