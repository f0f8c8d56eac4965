"""The journey on real photographs: blood cells, if they are on this machine; test_journey.py has generated ones.

``BCCD_ROOT`` names the data, as for the config in configs/bccd. ``init`` and ``check`` look at all of them; the rest
uses a few, so that all of it takes half a minute.
"""

import json
import os
from pathlib import Path

import pytest

from mmcondetr.cli import main
from mmcondetr.visualization.curves import read_records

ROOT = Path(__file__).resolve().parents[2]
PLACES = [os.environ.get('BCCD_ROOT'), ROOT / 'data' / 'bccd', ROOT.parent / 'shared' / 'data' / 'bccd']
FEW = dict(train=12, val=4, test=3)
ONE_PROCESS = [
    f'{part}_dataloader.{key}' for part in FEW for key in ('num_workers=0', 'persistent_workers=False')
]  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def bccd() -> Path:
    for place in filter(None, PLACES):
        if (Path(place) / 'annotations' / 'train.json').is_file():
            return Path(place).resolve()
    pytest.skip(f"the blood cells' photos are in none of {', '.join(map(str, PLACES[1:]))}, nor named by BCCD_ROOT")


def write_few(source: Path, target: Path) -> Path:
    """The first images of each part with their boxes."""
    (target / 'annotations').mkdir(parents=True)
    (target / 'images').symlink_to(source / 'images')
    for part, count in FEW.items():
        content = json.loads((source / 'annotations' / f'{part}.json').read_text())
        content['images'] = content['images'][:count]
        ids = {image['id'] for image in content['images']}
        content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] in ids]
        (target / 'annotations' / f'{part}.json').write_text(json.dumps(content))
    return target


def test_all_photos_are_checked(bccd, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['init', str(bccd), '--out', 'all.py', '--start', 'small']) == 0
    said = capsys.readouterr().out
    assert '3 classes: RBC (' in said and 'careful' not in said
    assert main(['check', 'all.py', '--samples', '2']) == 0
    said = capsys.readouterr().out
    assert 'no errors' in said and Path('data_check/data.html').is_file()
    counts = {part: len(json.loads((bccd / f'annotations/{part}.json').read_text())['images']) for part in FEW}
    row = next(line for line in said.splitlines() if line.split()[:1] == ['images'])
    assert [int(word) for word in row.split()[1:]] == list(counts.values())


def test_from_photos_to_detections(bccd, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_few(bccd, tmp_path / 'few')
    size = ['--start', 'small', '--iterations', '15', '--batch-size', '4']
    assert main(['init', str(data), '--out', 'cells.py', *size]) == 0
    options = ['--cfg-options', *ONE_PROCESS, 'default_hooks.logger.interval=1', 'train_cfg.val_interval=5']
    assert main(['train', 'cells.py', *options]) == 0, capsys.readouterr().err
    losses = [record['loss'] for record in read_records('work_dirs/cells') if 'loss' in record]
    assert len(losses) == 15 and sum(losses[-5:]) < 0.9 * sum(losses[:5]), losses
    capsys.readouterr()
    assert main(['test', 'cells.py', 'work_dirs/cells', '--cfg-options', *ONE_PROCESS]) == 0
    assert 'bbox_mAP' in capsys.readouterr().out
    photos = [str(bccd / 'images' / image['file_name']) for image in _images(data, 'test')]
    assert main(['predict', 'cells.py', 'work_dirs/cells', *photos, '--out', 'found', '--score-threshold', '0']) == 0
    found = json.loads(Path('found/predictions.json').read_text())
    assert len(found['images']) == len(list(Path('found/pictures').glob('*.jpg'))) == FEW['test']
    for entry in found['annotations']:
        x, y, width, height = entry['bbox']
        assert 0 <= x <= x + width <= 640.01 and 0 <= y <= y + height <= 480.01 and entry['category_id'] in (1, 2, 3)
    truth = ['--truth', str(data / 'annotations' / 'test.json'), '--predictions', 'found/predictions.json']
    assert main(['analyze', *truth, '--images', str(bccd / 'images'), '--worst', '2']) == 0
    figures = json.loads(Path('analysis/analysis.json').read_text())
    assert figures['images'] == FEW['test'] and [entry['name'] for entry in figures['classes']] == [
        'RBC', 'WBC', 'Platelets',
    ]  # fmt: skip


def _images(data: Path, part: str) -> list[dict]:
    return json.loads((data / 'annotations' / f'{part}.json').read_text())['images']
