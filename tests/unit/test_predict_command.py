"""mmcondetr predict: files, folders, patterns and videos become pictures and one COCO JSON."""

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from tiny_files import CLASSES, write_model
from tiny_masks import with_masks
from tiny_model import tiny_config

import mmcondetr
from mmcondetr.cli import main
from mmcondetr.datasets.coco_panoptic import check_segment_ids
from mmcondetr.datasets.panoptic_file import read_panoptic_file
from mmcondetr.datasets.panoptic_png import read_panoptic_png
from mmcondetr.errors import UserError
from mmcondetr.inference.panoptic_json import describe_panoptic
from mmcondetr.inference.sources import find_sources


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('model'), tiny_config())


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (('a.png', (60, 90)), ('b.jpg', (60, 90)), ('more/c.tiff', (90, 60))):
        pixels = cv2.resize(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8), size[::-1], interpolation=0)
        assert cv2.imwrite(str(folder / name), pixels)
    (folder / 'notes.txt').write_text('no image')
    return folder


def test_a_folder_becomes_pictures_and_a_json(files, photos, tmp_path, capfd):
    out = tmp_path / 'out'
    options = ['--score-threshold', '0', '--batch-size', '2', '--device', 'cpu']
    assert main(['predict', *files, str(photos), '--out', str(out), *options]) == 0
    assert '60 objects in 3 images' in capfd.readouterr().out
    drawn = sorted(path.relative_to(out).as_posix() for path in (out / 'pictures').rglob('*.*'))
    assert drawn == ['pictures/a.png', 'pictures/b.jpg', 'pictures/more/c.png']
    data = json.loads((out / 'predictions.json').read_text())
    assert [image['file_name'] for image in data['images']] == ['a.png', 'b.jpg', 'more/c.tiff']
    assert [category['name'] for category in data['categories']] == list(CLASSES)
    expected = mmcondetr.Detector(*files, device='cpu').predict(photos / 'a.png', 0.0)
    coco = COCO(str(out / 'predictions.json'))
    written = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    boxes = np.array([entry['bbox'] for entry in written])
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(boxes, expected.xyxy, atol=0.011)
    assert [entry['category_id'] - 1 for entry in written] == expected.class_id.tolist()
    assert (cv2.imread(str(out / 'pictures' / 'a.png')) != cv2.imread(str(photos / 'a.png'))).any()


def test_nothing_found_is_said_with_the_threshold(files, photos, tmp_path, capfd):
    options = ['--out', str(tmp_path / 'out'), '--no-pictures', '--device', 'cpu', '--score-threshold', '0.99']
    assert main(['predict', *files, str(photos / 'a.png'), *options]) == 0
    said = capfd.readouterr().out
    assert '0 objects above score 0.99 in 1 image; a lower --score-threshold shows less certain ones' in said


def test_equal_names_do_not_collide(files, photos, tmp_path, monkeypatch):
    """a.tif and a.png, and files of one name in two folders, one of them given twice."""
    pixels = cv2.imread(str(photos / 'a.png'))
    for name in ('a.tif', 'a.tif.png', 'more/a.png', 'more/A.PNG'):
        assert cv2.imwrite(str(photos / name), pixels)
    monkeypatch.chdir(photos)
    out = tmp_path / 'out'
    options = ['--device', 'cpu', '--out', str(out)]
    assert main(['predict', *files, 'a.png', str(photos), './more/../a.png', *options]) == 0
    names = [image['file_name'] for image in json.loads((out / 'predictions.json').read_text())['images']]
    assert len(names) == len(set(names)) == 7
    drawn = {path.relative_to(out / 'pictures').as_posix() for path in (out / 'pictures').rglob('*.*')}
    expected = {'a.png', 'a.tif.png', 'a.tif.png.png', 'b.jpg', 'more/c.png', 'more/a.png', 'more/A.PNG'}
    assert drawn == expected


def test_a_picture_does_not_replace_its_photo(files, photos, tmp_path, capfd):
    photos.rename(tmp_path / 'pictures')
    before = (tmp_path / 'pictures' / 'a.png').read_bytes()
    assert main(['predict', *files, str(tmp_path / 'pictures'), '--device', 'cpu', '--out', str(tmp_path)]) == 2
    assert "pictures/a.png' is the image or video itself: pass another folder" in capfd.readouterr().err
    assert (tmp_path / 'pictures' / 'a.png').read_bytes() == before


def test_masks_are_written_as_run_lengths(photos, tmp_path):
    masked = write_model(tmp_path, with_masks(tiny_config()))
    command = ['predict', *masked, str(photos / 'a.png'), '--score-threshold', '0', '--device', 'cpu']
    assert main([*command, '--tile', '64', '--out', str(tmp_path / 'out'), '--no-pictures']) == 0
    coco = COCO(str(tmp_path / 'out' / 'predictions.json'))
    expected = mmcondetr.Detector(*masked, device='cpu').predict(photos / 'a.png', 0.0, tile=64)
    written = coco.loadAnns(coco.getAnnIds())
    assert 0 < expected.mask.mean() < 1
    assert (np.array([coco.annToMask(entry) for entry in written]) == expected.mask).all()
    assert [entry['area'] for entry in written] == expected.mask.sum(axis=(1, 2)).tolist()


PANOPTIC = dict(num_classes=5, num_things=3, score_threshold=0.0)


def test_panoptic_maps_are_written_as_coco_has_them(photos, tmp_path, capfd):
    """What is written is read, with all checks, by our own data set and metric."""
    files = write_model(tmp_path, with_masks(tiny_config(), panoptic=PANOPTIC), seed=5)
    out, film = tmp_path / 'out', photos / 'film.avi'
    cv2.imwrite(str(photos / 'a.jpg'), cv2.imread(str(photos / 'a.png')))  # would have a PNG of the same name
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*'MJPG'), 10, (96, 64))
    writer.write(cv2.resize(cv2.imread(str(photos / 'a.png')), (96, 64)))
    writer.release()
    assert main(['predict', *files, str(photos), '--tile', '64', '--out', str(out), '--device', 'cpu']) == 0
    assert f'wrote {out / "panoptic.json"} and {out / "panoptic"}' in capfd.readouterr().out
    written = read_panoptic_file(str(out / 'panoptic.json'), 'test')
    assert written.classes == CLASSES and [bool(category.isthing) for category in written.categories] == [1, 1, 1, 0, 0]
    names = {image.id: image.file_name for image in written.images}
    pngs = {names[annotation.image_id]: annotation.file_name for annotation in written.annotations}
    assert pngs == {
        'a.jpg': 'a.png',
        'a.png': 'a.png.png',
        'b.jpg': 'b.png',
        'more/c.tiff': 'more/c.png',
        'film.avi#0': 'film.avi#0.png',
    }
    found = mmcondetr.Detector(*files, device='cpu').predict(photos / 'a.png')
    annotation = written.annotations[1]
    ids = read_panoptic_png(str(out / 'panoptic' / annotation.file_name), 'test')
    check_segment_ids(ids, [segment.id for segment in annotation.segments_info], 'png', 'test', 2)
    assert ids.shape == found.panoptic.shape == (60, 90) and len(annotation.segments_info) > 1
    labels = {segment.id: segment.category_id - 1 for segment in annotation.segments_info} | {0: 5}
    assert (np.vectorize(labels.get)(ids) == found.panoptic % 1000).all()
    assert len(np.unique(ids)) == len(np.unique(found.panoptic))
    entry = json.loads((out / 'panoptic.json').read_text())['annotations'][1]['segments_info'][0]
    rows, columns = np.nonzero(ids == entry['id'])
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert entry['area'] == len(rows) and entry['bbox'] == box
    drawn = cv2.imread(str(out / 'pictures' / 'a.png'))[..., ::-1]
    assert (drawn == np.array(found.plot())).all()


def test_segments_of_a_panoptic_map():
    ids, segments = describe_panoptic(np.array([[3, 3, 1000, 2000], [5, 3, 1000, 5]]), 5)
    assert [(entry['category_id'], entry['area'], entry['bbox']) for entry in segments] == [
        (4, 3, [0, 0, 2, 2]),
        (1, 2, [2, 0, 1, 2]),
        (1, 1, [3, 0, 1, 1]),
    ]
    numbers = [entry['id'] for entry in segments]
    assert (
        len({0, *numbers}) == 4
        and (ids == np.array([[numbers[0], numbers[0], *numbers[1:]], [0, *numbers[:2], 0]])).all()
    )


def test_a_video_becomes_a_video(files, tmp_path):
    film = tmp_path / 'film.avi'
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*'MJPG'), 10, (96, 64))
    for value in range(5):
        writer.write(np.full((64, 96, 3), 40 * value, np.uint8))
    writer.release()
    out = tmp_path / 'out'
    command = ['predict', *files, str(film), '--out', str(out), '--score-threshold', '0', '--every', '2']
    assert main([*command, '--device', 'cpu']) == 0
    data = json.loads((out / 'predictions.json').read_text())
    assert [image['frame'] for image in data['images']] == [0, 2, 4] and len(data['annotations']) == 60
    capture = cv2.VideoCapture(str(out / 'pictures' / 'film.mp4'))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and capture.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    assert main([*command, '--no-pictures', '--tile', '40', '--device', 'cpu', '--out', str(tmp_path / 'json')]) == 0
    assert not (tmp_path / 'json' / 'pictures').exists()


def test_videos_of_equal_names(files, tmp_path):
    for name, code in (('one/film.avi', 'MJPG'), ('one/film.mp4', 'mp4v'), ('two/film.avi', 'MJPG')):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*code), 10, (96, 64))
        writer.write(np.full((64, 96, 3), 100, np.uint8))
        writer.release()
    out = tmp_path / 'out'
    films = [str(tmp_path / folder) for folder in ('one', 'two')]
    assert main(['predict', *files, *films, '--device', 'cpu', '--out', str(out)]) == 0
    names = [image['file_name'] for image in json.loads((out / 'predictions.json').read_text())['images']]
    assert names == ['one/film.avi#0', 'one/film.mp4#0', 'two/film.avi#0']
    drawn = sorted(path.relative_to(out / 'pictures').as_posix() for path in (out / 'pictures').rglob('*.*'))
    assert drawn == ['one/film.avi.mp4', 'one/film.mp4', 'two/film.mp4']


def test_sources_are_found_once_and_in_order(photos):
    found = find_sources([str(photos / '*.*'), str(photos), str(photos / 'b.jpg')])
    assert found == [str(photos / name) for name in ('a.png', 'b.jpg', 'more/c.tiff')]


def test_sources_that_are_none(photos, tmp_path):
    (tmp_path / 'empty').mkdir()
    for source, message in (
        ('gone.jpg', "gone.jpg' does not exist"),
        ('empty', "Folder '.*empty' contains no image"),
        ('photos/notes.txt', 'does not have the suffix of an image or video'),
        ('photos/*.webp', 'matches'),
    ):
        with pytest.raises(UserError, match=message):
            find_sources([str(tmp_path / source)])


def test_a_damaged_video_is_one_line(files, tmp_path, capfd):
    (tmp_path / 'film.mp4').write_bytes(b'not a video')
    assert main(['predict', *files, str(tmp_path / 'film.mp4'), '--device', 'cpu']) == 2
    assert "film.mp4' cannot be read by OpenCV" in capfd.readouterr().err
