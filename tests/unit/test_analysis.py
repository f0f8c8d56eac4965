"""mmcondetr analyze: AP equal to pycocotools', TIDE's kinds on hand-made errors, the page and its command."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mmcondetr.analysis.average_precision import ap_by_class
from mmcondetr.analysis.error_kinds import confusion, judge, measure_kinds
from mmcondetr.analysis.error_report import rank_worst
from mmcondetr.analysis.samples import covered, labels_by_name, make_sample, overlaps
from mmcondetr.cli import main
from mmcondetr.errors import UserError

A, B = [0, 0, 40, 40], [60, 0, 100, 40]  # two objects that do not touch


def shifted(box, by):
    return [box[0] + by, box[1], box[2] + by, box[3]]


def random_samples(seed=0, classes=3):
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(20):
        corner, size = rng.uniform(0, 60, (6, 2)), rng.uniform(20, 40, (6, 2))
        true = np.hstack([corner, corner + size])
        labels = rng.integers(0, classes, 6)
        guesses = [(box + rng.normal(0, 3, 4), rng.uniform(), label) for box, label in zip(true, labels)]
        guesses += [(box + rng.uniform(-9, 9, 4), rng.uniform(), rng.integers(0, classes)) for box in true]
        truth = [(box, label, index == 0 and number % 5 == 0) for index, (box, label) in enumerate(zip(true, labels))]
        samples.append(make_sample(f'{number}.png', truth, guesses))
    return samples


def test_overlaps_by_hand():
    np.testing.assert_allclose(overlaps(np.array([A]), np.array([A, shifted(A, 20), B])), [[1, 1 / 3, 0]])
    np.testing.assert_allclose(covered(np.array([[0.0, 0, 20, 40]]), np.array([A])), [[1]])


def test_our_ap50_is_pycocotools():
    samples = random_samples()
    ap50, costs = measure_kinds(samples, [judge(sample) for sample in samples], 3, 0.3)
    expected = np.mean([value for _, value in ap_by_class(samples, 3)])
    assert 0.2 < ap50 < 0.9 and ap50 == pytest.approx(expected, abs=1e-9)
    assert all(cost.ap50 >= 0 for cost in costs.values())


@pytest.mark.parametrize(
    'predicted, kinds, missed',
    [
        ([(A, 0.9, 0), (B, 0.8, 1)], ['right', 'right'], []),
        ([(A, 0.9, 1)], ['class'], [1]),
        ([(shifted(A, 20), 0.9, 0)], ['location'], [1]),
        ([(shifted(A, 20), 0.9, 1)], ['both'], [0, 1]),
        ([(A, 0.9, 0), (shifted(A, 1), 0.8, 0)], ['right', 'duplicate'], [1]),
        ([([0, 60, 40, 100], 0.9, 0)], ['background'], [0, 1]),
        ([], [], [0, 1]),
    ],
)
def test_kinds_of_errors(predicted, kinds, missed):
    judged = judge(make_sample('a', [(A, 0, False), (B, 1, False)], predicted))
    assert [verdict.kind for verdict in judged.verdicts] == kinds
    assert judged.missed == missed


def test_crowds_judge_nobody():
    sample = make_sample('a', [(A, 0, True)], [([5, 5, 15, 15], 0.9, 0), ([5, 5, 15, 15], 0.8, 1)])
    assert [verdict.kind for verdict in judge(sample).verdicts] == ['ignored', 'background']
    assert judge(sample).missed == []


def test_correcting_a_kind_restores_what_it_cost():
    truth = [(A, 0, False), (B, 0, False)]
    samples = [make_sample('a', truth, [(A, 0.9, 0), (shifted(B, 20), 0.8, 0)])]
    ap50, costs = measure_kinds(samples, [judge(sample) for sample in samples], 1, 0.3)
    assert ap50 == pytest.approx(51 / 101)  # recalls up to one half
    assert costs['location'].count == 1 and costs['location'].ap50 == pytest.approx(50 / 101)
    assert costs['missed'] == (0, 0, 0) and costs['class'] == (0, 0, 0)
    samples = [make_sample('a', truth, [(A, 0.9, 0)])]
    costs = measure_kinds(samples, [judge(sample) for sample in samples], 1, 0.3)[1]
    assert costs['missed'].count == 1 and costs['missed'].ap50 == pytest.approx(50 / 101)


def test_errors_below_the_threshold_cost_ap_and_are_counted_apart():
    """An object of each class is found, the second with less certainty than the first is taken for its class."""
    truth = [(A, 0, False), (B, 1, False)]
    samples = [make_sample('a', truth, [(A, 0.9, 0), (A, 0.25, 1), (B, 0.2, 1)])]
    ap50, costs = measure_kinds(samples, [judge(sample) for sample in samples], 2, 0.3)
    assert ap50 == pytest.approx(0.75)  # a precision of 1 / 2 for the second class
    assert costs['class'] == (0, 1, pytest.approx(0.25))
    assert costs['missed'][:2] == (1, 0), 'found, but not above the threshold'
    samples = [make_sample('a', truth, [(A, 0.9, 0), (B, 0.3, 1), (A, 0.25, 1)])]
    assert measure_kinds(samples, [judge(sample) for sample in samples], 2, 0.3)[1]['class'] == (0, 1, 0)


def test_confusion_by_hand():
    sample = make_sample(
        'a', [(A, 0, False), (B, 1, False)], [(A, 0.9, 1), (shifted(A, 2), 0.5, 0), (B, 0.2, 1), (B, 0.4, 0)]
    )
    # A is taken by its own class though the other scores more; the confident wrong class is then left over.
    assert confusion([sample], 2, 0.3).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert confusion([sample], 2, 0.6).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert rank_worst([make_sample('a', [], []), sample], 0.3, 5) == [(1, 2)]


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    Image.new('RGB', (120, 120), (90, 120, 90)).save(folder / 'a.png')
    truth = dict(
        images=[dict(id=7, file_name='a.png', width=120, height=120)],
        categories=[dict(id=4, name='cat'), dict(id=9, name='<dog>')],
        annotations=[
            dict(id=1, image_id=7, category_id=4, bbox=[0, 0, 40, 40], area=1600, iscrowd=0),
            dict(id=2, image_id=7, category_id=9, bbox=[60, 0, 40, 40], area=1600, iscrowd=0),
        ],
    )
    found = dict(
        truth,
        categories=[dict(id=1, name='<dog>'), dict(id=2, name='cat')],
        images=[dict(id=1, file_name='x/a.png')],
        annotations=[
            dict(id=1, image_id=1, category_id=2, bbox=[0, 0, 40, 40], score=0.9),
            dict(id=2, image_id=1, category_id=2, bbox=[60, 0, 40, 40], score=0.8),
        ],
    )
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    (tmp_path / 'found.json').write_text(json.dumps(found))
    return tmp_path


def run(files, *more):
    given = ['--truth', files / 'truth.json', '--predictions', files / 'found.json', '--out', files / 'out', *more]
    return main(['analyze', *map(str, given)])


def test_two_files_become_a_page(files, capsys):
    assert run(files, '--images', files / 'photos') == 0
    output = capsys.readouterr().out
    assert 'AP 50.0, AP50 50.0' in output and re.search(
        r'score >= 0.3 +any score +AP50 lost\n +class +1 +1 +50.0 ', output
    )
    figures = json.loads((files / 'out' / 'analysis.json').read_text())
    assert figures['confusion']['true_by_predicted'] == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert [entry['ap50'] for entry in figures['classes']] == [pytest.approx(1), pytest.approx(0)]
    assert figures['errors']['class'] == dict(count=1, any_score=1, ap50_lost=pytest.approx(0.5))
    page = (files / 'out' / 'analysis.html').read_text()
    assert '&lt;dog&gt;' in page and '<dog>' not in page and page.count('data:image/jpeg') == 1
    assert 'http' not in page.replace('http-equiv', '')


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda found: found['annotations'][0].pop('score'), 'without a score'),
        (lambda found: found['images'][0].update(file_name='b.png'), 'no image name in common'),
        (lambda found: [category.update(name='x') for category in found['categories']], 'no class in common: cat'),
        (lambda found: found.pop('images'), 'not in COCO format'),
    ],
)
def test_files_that_do_not_go_together(files, capsys, spoil, message):
    found = json.loads((files / 'found.json').read_text())
    spoil(found)
    (files / 'found.json').write_text(json.dumps(found))
    assert run(files) == 2
    assert message in capsys.readouterr().err


def test_images_of_one_name_are_matched_by_path(files, capsys):
    """Two images named a.png in the truth: matched where the paths agree, otherwise an error."""
    truth, found = (json.loads((files / f'{name}.json').read_text()) for name in ('truth', 'found'))
    for folder in ('x', 'y'):
        (files / 'photos' / folder).mkdir()
        Image.new('RGB', (120, 120)).save(files / 'photos' / folder / 'a.png')
    image = truth['images'][0]
    truth['images'] = [dict(image, file_name='x/a.png'), dict(image, id=8, file_name='y/a.png')]
    found['images'] = [dict(id=2, file_name='y/a.png'), dict(id=1, file_name='x/a.png')]
    (files / 'truth.json').write_text(json.dumps(truth))
    (files / 'found.json').write_text(json.dumps(found))
    assert run(files, '--images', files / 'photos') == 0
    assert 'AP 50.0, AP50 50.0' in capsys.readouterr().out
    for name in ('a.png', 'z/a.png'):
        found['images'] = [dict(id=1, file_name=name)]
        (files / 'found.json').write_text(json.dumps(found))
        assert run(files, '--images', files / 'photos') == 2
        assert 'several images of the same name, and their paths do not agree' in capsys.readouterr().err


def test_what_was_not_given(capsys):
    assert main(['analyze']) == 2
    assert 'Pass CONFIG and CHECKPOINT, or --truth' in capsys.readouterr().err


def test_classes_are_joined_by_name_whatever_their_order():
    assert labels_by_name(('a', 'b', 'other'), ('b', 'c', 'a')) == {0: 2, 1: 0}
    with pytest.raises(UserError, match='no class in common: a, and b'):
        labels_by_name(('a',), ('b',))
