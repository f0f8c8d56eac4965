"""The journey on real photographs: blood cells, if they are on this machine; test_journey.py has generated ones.

``BCCD_ROOT`` names the data, as for the config in configs/bccd. ``init`` and ``check`` look at all of them; the rest
uses a few, as COCO, YOLO and Pascal VOC, so that all of it takes about half a minute.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from own_data_files import write_voc, write_yolo

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
    """The first images of each part with their boxes: annotations/{train,val,test}.json, train/, val/ and test/."""
    (target / 'annotations').mkdir(parents=True)
    for part, count in FEW.items():
        content = json.loads((source / 'annotations' / f'{part}.json').read_text())
        content['images'] = content['images'][:count]
        ids = {image['id'] for image in content['images']}
        content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] in ids]
        (target / 'annotations' / f'{part}.json').write_text(json.dumps(content))
        (target / part).mkdir()
        for image in content['images']:
            (target / part / image['file_name']).symlink_to(source / 'images' / image['file_name'])
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
    few = write_few(bccd, tmp_path / 'few')
    size = ['--start', 'small', '--iterations', '15', '--batch-size', '4']
    assert main(['init', 'few', '--out', 'cells.py', *size]) == 0
    options = ['--cfg-options', *ONE_PROCESS, 'default_hooks.logger.interval=1', 'train_cfg.val_interval=5']
    assert main(['train', 'cells.py', *options]) == 0, capsys.readouterr().err
    losses = [record['loss'] for record in read_records('work_dirs/cells') if 'loss' in record]
    assert len(losses) == 15 and sum(losses[-5:]) < 0.9 * sum(losses[:5]), losses
    capsys.readouterr()
    assert main(['test', 'cells.py', 'work_dirs/cells', '--cfg-options', *ONE_PROCESS]) == 0
    assert 'bbox_mAP' in capsys.readouterr().out
    assert main(['predict', 'cells.py', 'work_dirs/cells', 'few/test', '--out', 'found', '--score-threshold', '0']) == 0
    found = json.loads(Path('found/predictions.json').read_text())
    assert len(found['images']) == len(list(Path('found/pictures').glob('*.jpg'))) == FEW['test']
    for entry in found['annotations']:
        x, y, width, height = entry['bbox']
        assert 0 <= x <= x + width <= 640.01 and 0 <= y <= y + height <= 480.01 and entry['category_id'] in (1, 2, 3)
    truth = ['--truth', str(few / 'annotations' / 'test.json'), '--predictions', 'found/predictions.json']
    assert main(['analyze', *truth, '--worst', '2']) == 0
    figures = json.loads(Path('analysis/analysis.json').read_text())
    assert figures['images'] == FEW['test']
    assert [entry['name'] for entry in figures['classes']] == ['RBC', 'WBC', 'Platelets']


@pytest.mark.parametrize('write', [write_yolo, write_voc])
def test_the_same_boxes_in_other_formats(bccd, tmp_path, monkeypatch, capsys, write):
    """One epoch of three iterations; whole pixels become the same whole pixels again."""
    monkeypatch.chdir(tmp_path)
    few = write_few(bccd, tmp_path / 'few')
    write(few, tmp_path / 'other')
    size = ['--start', 'small', '--iterations', '3', '--batch-size', '4']
    assert main(['init', 'other', '--out', 'cells.py', *size]) == 0
    assert main(['check', 'cells.py', '--samples', '0']) == 0, capsys.readouterr().err
    expected, found = boxes_in(few / 'annotations' / 'train.json'), {}
    for path in (tmp_path / 'other').glob('coco_*.json'):
        found |= {name.split('train_')[-1]: boxes for name, boxes in boxes_in(path).items()}
    for name, boxes in expected.items():
        assert found[name] == boxes
    assert main(['train', 'cells.py', '--cfg-options', *ONE_PROCESS]) == 0, capsys.readouterr().err
    assert main(['predict', 'cells.py', 'work_dirs/cells', 'few/test', '--out', 'found']) == 0
    assert main(['analyze', 'cells.py', 'work_dirs/cells', '--worst', '2']) == 0
    assert Path('found/predictions.json').is_file() and Path('analysis/analysis.html').is_file()


def boxes_in(path: Path) -> dict[str, list]:
    """File name without folders -> its boxes to a millionth of a pixel, sorted."""
    content = json.loads(path.read_text())
    found = {}
    for image in content['images']:
        boxes = [np.round(entry['bbox'], 6) for entry in content['annotations'] if entry['image_id'] == image['id']]
        found[Path(image['file_name']).name] = sorted(map(list, boxes))
    return found
