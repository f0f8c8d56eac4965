"""Each part's images are found in their own folder, also where parts have equal file names."""

import json
import shutil

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from own_data_files import make_shapes
from PIL import Image

from mmcondetr.analysis.samples import read_samples
from mmcondetr.cli import main
from mmcondetr.datasets.own_data import find_own_data
from mmcondetr.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """annotations/{train,val}.json, train/ and val/, whose images have equal names."""
    folder = make_shapes(tmp_path / 'shapes', num_train=4, num_val=2)
    names = {path.name for path in (folder / 'val').iterdir()}
    assert names < {path.name for path in (folder / 'train').iterdir()}
    return folder


def roots(folder, **more):
    return find_own_data(folder / 'annotations' / 'train.json', folder / 'annotations' / 'val.json', **more).image_roots


def test_the_config_loads_each_parts_own_pictures(folder, tmp_path, capsys):
    out = tmp_path / 'my.py'
    assert main(['init', str(folder), '--out', str(out), '--start', 'small']) == 0
    output = capsys.readouterr().out
    assert f'images in {folder / "train"} (train)' in output and f'images in {folder / "val"} (val)' in output
    config = Config.fromfile(str(out))
    init_default_scope('mmdet')
    for part in ('train', 'val', 'test'):
        dataset = DATASETS.build(dict(config[f'{part}_dataloader'].dataset, lazy_init=False))
        wanted = folder / ('train' if part == 'train' else 'val')
        paths = {dataset.get_data_info(index)['img_path'] for index in range(len(dataset))}
        assert paths == {str(path) for path in wanted.glob('*.png')}
    assert len(out.read_text().splitlines()) <= 40


def test_validation_images_of_other_names_are_found(folder):
    content = json.loads((folder / 'annotations' / 'val.json').read_text())
    for image in content['images']:
        (folder / 'val' / image['file_name']).rename(folder / 'val' / f'v{image["file_name"]}')
        image['file_name'] = f'v{image["file_name"]}'
    (folder / 'annotations' / 'val.json').write_text(json.dumps(content))
    assert roots(folder) == dict(train=folder / 'train', val=folder / 'val')


def test_folders_of_other_names_are_told_apart_by_the_images_sizes(folder):
    for old, new in (('train', 'photos_a'), ('val', 'photos_b')):
        (folder / old).rename(folder / new)
    with pytest.raises(UserError, match="are in several folders, .*photos_a', .*photos_b': .* with --val-images"):
        roots(folder)
    for path in (folder / 'photos_a').iterdir():
        Image.open(path).resize((96, 128)).save(path)
    content = json.loads((folder / 'annotations' / 'train.json').read_text())
    for image in content['images']:
        image.update(width=96, height=128)
    (folder / 'annotations' / 'train.json').write_text(json.dumps(content))
    assert roots(folder) == dict(train=folder / 'photos_a', val=folder / 'photos_b')
    with pytest.raises(UserError, match='^val: . of . images have another size .*96x128 instead of 64x64'):
        roots(folder, val_images=folder / 'photos_a')  # whoever names a folder is believed, as far as training would


def test_one_folder_for_both_parts_is_one_root(folder):
    (folder / 'train').rename(folder / 'images')
    shutil.rmtree(folder / 'val')
    assert set(roots(folder).values()) == {folder / 'images'}


def test_missing_images_are_not_taken_from_another_part(folder):
    lost = sorted((folder / 'val').iterdir())[0]
    lost.unlink()
    with pytest.raises(UserError, match=r"val' has 1 of the 2 images of .*val.json', and .*train' 2 .* --val-images"):
        roots(folder)
    for path in (folder / 'train').iterdir():
        path.rename(path.with_name(f't{path.name}'))
    content = json.loads((folder / 'annotations' / 'train.json').read_text())
    for image in content['images']:
        image['file_name'] = f't{image["file_name"]}'
    (folder / 'annotations' / 'train.json').write_text(json.dumps(content))
    data = find_own_data(folder)
    assert data.image_roots['val'] == folder / 'val'
    assert [note for note in data.notes if note.startswith('1 of 2 images') and lost.name in note]


def test_what_is_nowhere_is_said_with_the_option(folder):
    shutil.rmtree(folder / 'val')
    shutil.rmtree(folder / 'train')
    with pytest.raises(UserError, match=r"'\S*png' of '\S*train.json' is not found near it: .* with --images"):
        roots(folder)
    with pytest.raises(UserError, match='png. does not exist: .* --images the folder'):
        roots(folder, images=folder)


def test_options_that_mean_nothing_are_refused(folder):
    with pytest.raises(UserError, match='--val-images needs data for validation'):
        find_own_data(folder / 'annotations' / 'train.json', val_images=folder / 'val')


def test_test_data_without_images_is_left_out_and_said(folder):
    content = json.loads((folder / 'annotations' / 'val.json').read_text())
    for image in content['images']:
        image['file_name'] = f'far_away_{image["file_name"]}'
    (folder / 'annotations' / 'test.json').write_text(json.dumps(content))
    data = find_own_data(folder)
    assert set(data.files) == set(data.image_roots) == {'train', 'val'}
    assert any('test.json' in note and 'left out' in note for note in data.notes)


def test_pictures_of_an_analysis_are_found_as_those_of_init(folder):
    truth = folder / 'annotations' / 'val.json'
    content = json.loads(truth.read_text())
    content['annotations'] = [dict(entry, score=0.5) for entry in content['annotations']]
    (folder / 'found.json').write_text(json.dumps(content))
    samples, _ = read_samples(str(truth), str(folder / 'found.json'))
    assert {sample.path for sample in samples} == {str(path) for path in (folder / 'val').glob('*.png')}
