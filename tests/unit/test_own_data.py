"""mmcondetr init: COCO, YOLO and Pascal VOC become the same boxes and a config that can be read."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from own_data_files import class_names, make_shapes, write_voc, write_yolo
from PIL import Image

from mmcondetr.cli import main
from mmcondetr.datasets.annotation_checks import check_values
from mmcondetr.datasets.annotation_file import decode
from mmcondetr.datasets.from_yolo import read_yolo
from mmcondetr.datasets.image_files import read_size
from mmcondetr.datasets.own_data import find_own_data
from mmcondetr.engine.own_config import STARTS, _choose_scale, choose
from mmcondetr.errors import UserError


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('own') / 'shapes')


def boxes_of(path, prefix=''):
    """File name without folders -> sorted (class, x, y, w, h)."""
    content = json.loads(path.read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    found = {}
    for image in content['images']:
        entries = [entry for entry in content['annotations'] if entry['image_id'] == image['id']]
        key = image['file_name'].rsplit('/', 1)[-1].removeprefix(prefix)
        found[key] = sorted((names[entry['category_id']], *entry['bbox']) for entry in entries)
    return found


def assert_same_boxes(a, b, tolerance):
    assert a.keys() == b.keys()
    for name in a:
        assert [entry[0] for entry in a[name]] == [entry[0] for entry in b[name]]
        np.testing.assert_allclose([e[1:] for e in a[name]], [e[1:] for e in b[name]], atol=tolerance)


def test_a_coco_folder_is_taken_as_it_is(shapes):
    found = find_own_data(shapes)
    assert found.kind == 'COCO' and found.files['val'].name == 'val.json'
    assert len(found.notes) == 1 and 'docs/masks.md' in found.notes[0]
    one = find_own_data(shapes / 'annotations' / 'train.json', shapes / 'annotations' / 'val.json')
    assert one.files == found.files and one.image_roots == dict(train=shapes / 'train', val=shapes / 'val')


def test_yolo_becomes_the_same_boxes(shapes, tmp_path):
    found = find_own_data(write_yolo(shapes, tmp_path / 'yolo'))
    assert found.kind == 'YOLO' and set(found.files) == {'train', 'val'}
    for part in ('train', 'val'):
        assert_same_boxes(boxes_of(found.files[part]), boxes_of(shapes / 'annotations' / f'{part}.json'), 1e-9)
    content = json.loads(found.files['train'].read_text())
    assert [category['name'] for category in content['categories']] == class_names(shapes)
    assert all((found.image_roots['train'] / image['file_name']).is_file() for image in content['images'])
    assert find_own_data(tmp_path / 'yolo').files == found.files  # a second time


def test_yolo_outlines_become_boxes_and_stay(shapes, tmp_path):
    folder = write_yolo(shapes, tmp_path / 'yolo')
    label = sorted((folder / 'labels' / 'train').glob('*.txt'))[0]
    label.write_text('0 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5\n')
    content = json.loads(find_own_data(folder).files['train'].read_text())
    entry = content['annotations'][0]
    assert entry['bbox'] == [16, 16, 32, 16] and entry['area'] == 512
    assert entry['segmentation'] == [[16, 16, 48, 16, 48, 32, 16, 32]]


@pytest.mark.parametrize('values', [2, 3])
def test_yolo_key_points_are_no_outline_and_stay(shapes, tmp_path, values):
    folder = write_yolo(shapes, tmp_path / 'yolo')
    with open(folder / 'data.yaml', 'a') as file:
        file.write(f'kpt_shape: [2, {values}]\n')
    seen = [' 2', ' 0'] if values == 3 else ['', '']
    label = sorted((folder / 'labels' / 'train').glob('*.txt'))[0]
    label.write_text(f'0 0.5 0.5 0.25 0.5 0.25 0.75{seen[0]} 0 0{seen[1]}\n')
    entry = find_own_data(folder).contents['train']['annotations'][0]
    assert entry['bbox'] == [24, 16, 16, 32] and 'segmentation' not in entry
    assert entry['keypoints'] == [16, 48, 2, 0, 0, 0 if values == 3 else 2]
    assert entry['num_keypoints'] == (1 if values == 3 else 2)


def test_voc_becomes_the_same_boxes_and_keeps_its_fields(shapes, tmp_path):
    found = find_own_data(write_voc(shapes, tmp_path / 'voc'), seed=3, val_share=0.4)
    assert found.kind == 'Pascal VOC' and any('from 1' in note for note in found.notes)
    parts = {part: boxes_of(found.files[part], 'train_') for part in ('train', 'val')}
    assert (len(parts['train']), len(parts['val'])) == (4, 2) and not set(parts['train']) & set(parts['val'])
    # whole pixels in VOC: each side is at most half a pixel off, a width then one
    assert_same_boxes(parts['train'] | parts['val'], boxes_of(shapes / 'annotations/train.json'), 1.001)
    entry = json.loads(found.files['train'].read_text())['annotations'][0]
    assert (entry['difficult'], entry['pose']) == (1, 'Left')
    assert any('objects are difficult' in note for note in found.notes)
    again = find_own_data(tmp_path / 'voc', seed=3, val_share=0.4)
    assert boxes_of(again.files['val'], 'train_') == parts['val']
    other = find_own_data(tmp_path / 'voc', seed=4, val_share=0.4, force=True)
    assert boxes_of(other.files['val'], 'train_').keys() != parts['val'].keys()


def test_fields_of_voc_that_coco_has_no_name_for_are_kept(shapes, tmp_path):
    folder = write_voc(shapes, tmp_path / 'voc')
    path = sorted((folder / 'Annotations').glob('*.xml'))[0]
    part = '<part><name>tip</name><bndbox><xmin>1</xmin></bndbox></part>'
    text = path.read_text().replace('</filename>', '</filename><source><database>own</database></source>', 1)
    path.write_text(text.replace('</bndbox>', f'</bndbox><difficult/><occluded>maybe</occluded>{part}{part}', 1))
    content = find_own_data(folder).contents
    images = content['train']['images'] + content['val']['images']
    image = next(image for image in images if image['file_name'].endswith(f'{path.stem}.png'))
    assert image['voc'] == dict(source=dict(database='own'), size=dict(width='64', height='64'))
    parts = content['train']['annotations'] + content['val']['annotations']
    (entry,) = [entry for entry in parts if 'voc' in entry]
    assert entry['voc'] == dict(occluded='maybe', part=2 * [dict(name='tip', bndbox=dict(xmin='1'))])
    path.write_text(text.replace('</source>', '<a>' * 30 + '</a>' * 30 + '</source>'))
    with pytest.raises(UserError, match=f"'{path.stem}.xml' has elements nested more than 20 deep"):
        find_own_data(folder)


def test_voc_of_tools_that_count_from_zero(shapes, tmp_path):
    folder = write_voc(shapes, tmp_path / 'voc')
    path = sorted((folder / 'Annotations').glob('*.xml'))[0]
    box = '<bndbox><xmin>0</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>'
    path.write_text(
        f'<annotation><filename>{path.stem}.png</filename><object><name>star</name>{box}</object></annotation>'
    )
    found = find_own_data(folder)
    assert any('from 0' in note for note in found.notes)
    everything = boxes_of(found.files['train']) | boxes_of(found.files['val'])
    assert everything[f'{path.stem}.png'] == [('star', 0, 5, 20, 25)]


@pytest.mark.parametrize('form', ['x, y, width, height', 'centre x, centre y, width, height'])
def test_voc_boxes_that_are_no_corners_stop_with_the_cause(shapes, tmp_path, form):
    folder = write_voc(shapes, tmp_path / 'voc')
    numbers = '40 40 30 20' if form[0] == 'c' else '30 25 12 14'
    for path in (folder / 'Annotations').glob('*.xml'):
        path.write_text(re.sub(r'<xmin>.*?</ymax>', _bndbox(*map(int, numbers.split())), path.read_text()))
    with pytest.raises(UserError, match=rf'left out .* is probably \({form}\) in pixels'):
        find_own_data(folder)
    assert not list(folder.glob('*.json'))


def _bndbox(*values):
    return ''.join(f'<{side}>{value}</{side}>' for side, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), values))


def test_voc_boxes_refer_to_the_size_in_their_xml_unless_they_exceed_it(shapes, tmp_path):
    folder = write_voc(shapes, tmp_path / 'voc')
    texts = {path: path.read_text() for path in sorted((folder / 'Annotations').glob('*.xml'))}

    def write(width, height, box):
        for path, text in texts.items():
            text = text.replace('<width>64</width><height>64<', f'<width>{width}</width><height>{height}<')
            path.write_text(re.sub(r'<xmin>.*?</ymax>', _bndbox(*box), text))

    write(32, 16, (2, 3, 30, 15))
    first = next(iter(texts)).name
    message = f'6 of 6 XMLs .* {first} with 32 x 16 where the image is 64 x 64.* x by 2 and y by 4 there'
    with pytest.raises(UserError, match=message):
        find_own_data(folder)
    assert not list(folder.glob('*.json'))
    write(128, 128, (2, 3, 30, 15))
    with pytest.raises(UserError, match='x by 0.5 and y by 0.5'):
        find_own_data(folder)
    write(32, 16, (2, 3, 60, 50))
    assert any('which is taken, as boxes extend beyond the former' in note for note in find_own_data(folder).notes)


def test_a_turned_photo_has_the_size_that_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (40, 20)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_size(tmp_path / 'a.jpg') == (20, 40) == cv2.imread(str(tmp_path / 'a.jpg')).shape[1::-1]


LAUGHS = '- &a0 [ha]\n' + ''.join(f'- &a{n} [*a{n - 1}, *a{n - 1}]\n' for n in range(1, 26))
"""Lists that hold the former twice: a line of text of half a gigabyte."""


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda yolo: next((yolo / 'labels/train').glob('*.txt')).write_text('0 a b c d\n'), 'line 1: .* not numbers'),
        (lambda yolo: next((yolo / 'labels/train').glob('*.txt')).write_text('\n0 20 30 5 5\n'), 'line 2: 30 is no'),
        (
            lambda yolo: next((yolo / 'labels/train').glob('*.txt')).write_text('0 nan .5 .1 .1\n'),
            'line 1: .*not finite',
        ),
        (lambda yolo: next((yolo / 'labels/train').glob('*.txt')).write_text('0 0.1 0.1 0.1\n'), 'line 1: expected'),
        (lambda yolo: next((yolo / 'labels/train').glob('*.txt')).write_text('77 .1 .1 .1 .1\n'), r'classes \[77\]'),
        (lambda yolo: (yolo / 'data.yaml').write_text('a: [\n'), 'data.yaml.* cannot be read as YAML'),
        (lambda yolo: next((yolo / 'images/train').glob('*.png')).write_text('no'), 'png.* cannot be read'),
        (lambda yolo: (yolo / 'data.yaml').write_text('train: train\nnames: {a: b}\n'), 'names must be a list of'),
        (lambda yolo: (yolo / 'data.yaml').write_text('train: a\nnames: [b]\nkpt_shape: 3\n'), 'kpt_shape must be'),
        (lambda yolo: (yolo / 'data.yaml').write_text(f'train: train\nnames:\n{LAUGHS}'), 'names must be a list of'),
    ],
)
def test_a_broken_yolo_folder_names_the_place(shapes, tmp_path, spoil, message):
    folder = write_yolo(shapes, tmp_path / 'yolo')
    spoil(folder)
    with pytest.raises(UserError, match=message):
        find_own_data(folder)


def test_what_is_no_data_set_is_said(shapes, tmp_path):
    with pytest.raises(UserError, match="gone' does not exist"):
        find_own_data(tmp_path / 'gone')
    with pytest.raises(UserError, match='is not recognised: there is no COCO JSON'):
        find_own_data(tmp_path)
    voc = write_voc(shapes, tmp_path / 'voc')
    xml = next((voc / 'Annotations').glob('*.xml'))
    xml.write_text('<annotation>')
    with pytest.raises(UserError, match=f'{xml.name}.* is not valid XML'):
        find_own_data(voc)
    xml.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation></annotation>')
    with pytest.raises(UserError, match='declares XML entities'):
        find_own_data(voc)


def test_the_config_is_short_and_says_what_was_chosen(shapes, tmp_path, capsys):
    out = tmp_path / 'my.py'
    assert main(['init', str(write_yolo(shapes, tmp_path / 'yolo')), '--out', str(out), '--start', 'small']) == 0
    output = capsys.readouterr().out
    assert '3000 iterations' in output and 'wrote' in output and '4 images' in output
    lines = out.read_text().splitlines()
    # Absolute paths are as long as the user's folders: they do not count.
    assert len(lines) <= 40 and max(len(line.replace(str(tmp_path), '')) for line in lines) < 120
    config = Config.fromfile(str(out))
    assert config.model.bbox_head.num_classes == len(class_names(shapes)) == 6
    assert config.train_dataloader.batch_size == 4 and config.train_cfg.max_epochs == 1500  # two steps each
    assert config.load_from.endswith('shapes-start.safetensors')
    assert config.val_dataloader.batch_size == 1 and config.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    assert main(['init', str(tmp_path / 'yolo'), '--out', str(out)]) == 2
    assert f"'{out}' exists" in capsys.readouterr().err


def test_the_shortest_training_can_be_built(shapes, tmp_path):
    out = tmp_path / 'short.py'
    assert main(['init', str(shapes), '--out', str(out), '--start', 'small', '--iterations', '1']) == 0
    warm_up = Config.fromfile(str(out)).param_scheduler[0]
    assert warm_up.begin < warm_up.end


def test_the_other_start_is_the_papers_model(shapes, tmp_path):
    out = tmp_path / 'my.py'
    assert (
        main(['init', str(shapes), '--out', str(out), '--start', 'r50', '--iterations', '12', '--flips', 'both']) == 0
    )
    config = Config.fromfile(str(out))
    assert config.model.backbone.depth == 50 and config.load_from.endswith('ConditionalDETR_r50_epoch50.pth')
    assert config.train_dataloader.dataset.data_prefix == dict(img='train/')
    assert config.train_cfg.max_epochs == 6 and config.scale == (1333, 800)  # two steps an epoch
    assert len(config.train_dataloader.dataset.pipeline[3].direction) == 3


@pytest.mark.parametrize(
    'size, side, scale',
    [
        ((640, 480), 100, (320, 240)),  # photos are made smaller
        ((128, 128), 40, (128, 128)),  # small images stay as they are
        ((128, 100), 8, (256, 208)),  # but for objects of less than a token
        ((3000, 2000), 20, (640, 432)),
        ((40, 20), 10, (64, 32)),
    ],
)
def test_images_are_enlarged_for_small_objects_only(shapes, size, side, scale):
    content = find_own_data(shapes).contents['train']
    for image in content['images']:
        image.update(width=size[0], height=size[1])
    for entry in content['annotations']:
        entry['bbox'] = [0, 0, side, side + 5]
    chosen, why = _choose_scale(content, STARTS['small'])
    assert chosen == scale and f'resized into {scale[0]} x {scale[1]} pixels' in why
    assert _choose_scale(content, STARTS['r50'])[0] == (1333, 800)


def test_sizes_classes_and_flips_follow_the_data(shapes, tmp_path):
    found = find_own_data(write_yolo(shapes, tmp_path / 'yolo'))
    content = found.contents['train']
    for image in content['images']:
        image.update(width=1280, height=960)
    for entry in content['annotations']:
        entry['bbox'][2:] = [40, 50]  # 16 pixels need a side of 512
    content['categories'][0]['name'] = 'left hand'
    content['categories'].append(dict(id=99, name='nothing'))
    choices = choose(found, STARTS['small'], batch_size=2)
    assert choices.scale == (512, 384) and choices.flips == 'none' and 'nothing' not in choices.classes
    assert choices.steps == 3 and choices.epochs == 1000
    assert any('left out' in reason and 'nothing' in reason for reason in choices.reasons)
    assert not any('careful' in reason for reason in choices.reasons)
    content['annotations'] *= 31
    (warned,) = [reason for reason in choose(found, STARTS['small']).reasons if 'careful' in reason]
    assert 'objects, and this model finds 30 at most' in warned
    content['annotations'] = []
    with pytest.raises(UserError, match='holds no box'):
        choose(found, STARTS['small'])


def test_wrong_types_are_named_by_init(tmp_path, shapes, capsys):
    root = tmp_path / 'data'
    shutil.copytree(shapes, root)
    path = root / 'annotations' / 'train.json'
    data = json.loads(path.read_text())
    data['annotations'][3]['bbox'] = None
    path.write_text(json.dumps(data))
    assert main(['init', str(root), '--out', str(tmp_path / 'my.py')]) == 2
    assert '$.annotations[3].bbox' in capsys.readouterr().err and not (tmp_path / 'my.py').exists()


@pytest.mark.parametrize('part', ['train', 'val'])
def test_a_truncated_json_is_called_so_and_not_overlooked(shapes, tmp_path, part):
    shutil.copytree(shapes, tmp_path / 'cut')
    path = tmp_path / 'cut' / 'annotations' / f'{part}.json'
    path.write_text(path.read_text()[:200])
    message = rf"'\S*{part}.json' is truncated, or not JSON: .* at line 1, column \d+"
    for given in (tmp_path / 'cut', path):
        with pytest.raises(UserError, match=message):
            find_own_data(given)
    path.write_text('{"images": [},\n  "annotations": []}')
    with pytest.raises(UserError, match=rf"{part}.json' is not valid JSON: expecting value at line 1, column 13"):
        find_own_data(tmp_path / 'cut')


def test_wrong_annotations_end_init_before_anything_is_written(shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / 'own')
    path = tmp_path / 'own' / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    for category in content['categories']:
        category['id'] = str(category['id'])
    path.write_text(json.dumps(content))
    (tmp_path / 'own' / 'annotations' / 'val.json').unlink()
    with pytest.raises(
        UserError, match="They are numbers where the categories have strings: 'mmcondetr convert-.* then pa"
    ):
        find_own_data(tmp_path / 'own')
    assert [file.name for file in path.parent.iterdir()] == ['train.json']


def test_images_of_another_size_than_the_json_says_stop_init_as_they_stop_check(shapes, tmp_path, capsys):
    shutil.copytree(shapes, tmp_path / 'own')
    path, out = tmp_path / 'own' / 'annotations' / 'train.json', tmp_path / 'my.py'
    good = json.loads(path.read_text())
    assert main(['init', str(tmp_path / 'own'), '--out', str(out), '--start', 'small']) == 0
    for image in good['images']:
        image.update(width=128, height=128)
    path.write_text(json.dumps(good))
    assert main(['check', str(out), '--out', str(tmp_path / 'check')]) == 1
    (check,) = [line for line in capsys.readouterr().err.splitlines() if 'another size' in line]
    out.unlink()
    assert main(['init', str(tmp_path / 'own'), '--out', str(out), '--start', 'small']) == 2 and not out.exists()
    said = capsys.readouterr().err
    start = check.partition('fixed.json ')[0]  # what follows depends on whether there is a config
    assert start.startswith('error: train: 6 of 6 images have another size') and '64x64 instead of 128x128' in start
    assert said.startswith(start) and 'pass the new file to mmcondetr init' in said


@pytest.mark.parametrize('outlines', ['all', 'some', 'none'])
def test_masks_are_offered_where_there_are_outlines(shapes, tmp_path, capsys, outlines):
    shutil.copytree(shapes, tmp_path / 'own')
    path = tmp_path / 'own' / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    count = len(content['annotations'])
    for entry in content['annotations'][: dict(all=0, some=2, none=count)[outlines]]:
        entry['segmentation'] = []
    path.write_text(json.dumps(content))
    assert main(['init', str(tmp_path / 'own'), '--out', str(tmp_path / 'my.py'), '--start', 'small']) == 0
    offers = [line for line in capsys.readouterr().out.splitlines() if 'docs/masks.md' in line]
    assert len(offers) == (outlines != 'none')
    if offers:
        said = f'- {count - 2} of {count} annotations have outlines' if outlines == 'some' else '- the annotations have'
        assert offers[0].startswith(said)


def test_an_image_listed_twice_and_classes_of_almost_one_name(shapes, tmp_path, capsys):
    """The first stops init, check and train with one message; the second is said."""
    shutil.copytree(shapes, tmp_path / 'own')
    path, out = tmp_path / 'own' / 'annotations' / 'train.json', tmp_path / 'my.py'
    content = json.loads(path.read_text())
    content['categories'].append(dict(id=77, name=content['categories'][0]['name'].upper()))
    content['annotations'][0]['category_id'] = 77
    path.write_text(json.dumps(content))
    assert main(['init', str(tmp_path / 'own'), '--out', str(out), '--start', 'small']) == 0
    said = capsys.readouterr().out
    assert "- careful: train: 'circle' (" in said and "'CIRCLE' (1) are 2 classes whose names differ only in" in said
    content['images'].append(dict(content['images'][0], id=1000))
    path.write_text(json.dumps(content))
    message = f'listed more than once, with different annotations: .*{content["images"][0]["file_name"]}'
    with pytest.raises(UserError, match=f'{message}.*--merge-images.*then pass the new file to mmcondetr init'):
        find_own_data(tmp_path / 'own')
    with pytest.raises(UserError, match=f'{message}.*train_dataloader.dataset.ann_file='):
        DATASETS.build(dict(Config.fromfile(str(out)).train_dataloader.dataset))
    assert main(['check', str(out), '--out', str(tmp_path / 'check'), '--no-images', '--samples', '0']) == 1
    assert '--merge-images' in capsys.readouterr().err


@pytest.mark.parametrize('value', [float('nan'), 0, -3])
def test_boxes_that_train_would_refuse_or_leave_out(shapes, tmp_path, capsys, value):
    """The same message as that of training; in one box, a line of what is found instead of silence."""
    shutil.copytree(shapes, tmp_path / 'own')
    path = tmp_path / 'own' / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    content['annotations'][1]['bbox'][2] = value
    path.write_text(json.dumps(content))
    out = tmp_path / 'my.py'
    assert main(['init', str(tmp_path / 'own'), '--out', str(out), '--start', 'small']) == 0
    assert '- careful: train: 1 boxes lie outside their image or have no area' in capsys.readouterr().out
    before = out.read_text()
    for entry in content['annotations']:
        entry['bbox'][2] = value
    path.write_text(json.dumps(content))
    assert main(['init', str(tmp_path / 'own'), '--out', str(out), '--start', 'small', '--force']) == 2
    said = capsys.readouterr().err
    with pytest.raises(UserError) as training:
        dataset = dict(Config.fromfile(str(out)).train_dataloader.dataset)
        DATASETS.build(dataset)
    reason = str(training.value).partition('): ')[2]
    assert 'so none is left' in reason and reason in said and f"'{path}'" in said and out.read_text() == before


def test_wrong_labels_are_reported_before_anything_is_converted(shapes, tmp_path):
    folder = write_yolo(shapes, tmp_path / 'yolo')
    for label in (folder / 'labels' / 'train').glob('*.txt'):
        label.write_text('0 .5 .5 0 .1\n')
    with pytest.raises(UserError, match=rf"YOLO folder '{folder}' \(train\): .* no area .*, so none is left"):
        find_own_data(folder)
    corners = ''.join(f'0 {x} {x} {x + 0.2} {x + 0.2}\n' for x in (0.5, 0.6, 0.7))
    for label in (folder / 'labels' / 'train').glob('*.txt'):
        label.write_text(corners)
    with pytest.raises(UserError, match=r'extend beyond .* first in .*/labels/train/.*\.txt.*x1, y1, x2, y2.*correct'):
        find_own_data(folder)
    assert not list(folder.glob('*.json'))


@pytest.mark.parametrize('meaning', ['left x, top y, width', 'x1, y1, x2, y2', ''])
def test_yolo_labels_that_are_not_centres_stop_and_boxes_around_what_is_hidden_do_not(shapes, tmp_path, meaning):
    """The JSON of an earlier init, too: of corners taken for centres."""
    folder = write_yolo(shapes, tmp_path / 'yolo')
    corners = [(0.01, 0.02, 0.2, 0.3), (0.1, 0.3, 0.5, 0.6), (0.6, 0.5, 0.9, 1.0), (0.7, 0.6, 1.0, 0.9)]
    if not meaning:
        corners = [(-0.1, 0.02, 0.2, 0.3), (0.1, -0.1, 0.5, 0.6), (0.6, 0.5, 0.9, 1.1), (0.8, 0.1, 1.1, 0.4)]
    for label in (folder / 'labels').glob('*/*.txt'):
        form = dict(x=lambda a, b, c, d: (a, b, c, d), l=lambda a, b, c, d: (a, b, c - a, d - b)).get(meaning[:1])
        form = form or (lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, c - a, d - b))
        label.write_text(''.join(f'0 {" ".join(map(str, form(*box)))}\n' for box in corners))
    if not meaning:
        assert any('are clipped in training' in note for note in find_own_data(folder).notes)
        return
    with pytest.raises(UserError, match=rf'of 24 boxes extend beyond .*/labels/train/.*\.txt.*\({meaning}.*centre x, '):
        find_own_data(folder)
    assert not list(folder.glob('*.json'))
    converted, _ = _read_without_checks(folder)
    report = check_values(decode(json.dumps(converted['train']).encode()))
    assert [meaning in error.message for error in report.errors] == [True]


def _read_without_checks(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmcondetr.datasets.from_yolo._check_centres', lambda *_: None)
        return read_yolo(folder)


def test_labels_of_no_image_are_counted_and_stop_if_there_are_no_others(shapes, tmp_path):
    folder = write_yolo(shapes, tmp_path / 'yolo')
    labels = sorted((folder / 'labels' / 'train').glob('*.txt'))
    labels[0].rename(labels[0].with_name('Other.txt'))
    (folder / 'labels' / 'train' / 'classes.txt').write_text('a\n')  # as labelImg writes it
    notes = find_own_data(folder).notes
    assert any('train: 1 label files have the name of no image, the first ' in n and 'Other.txt' in n for n in notes)
    for label in labels[1:]:
        label.rename(label.with_name(f'Other_{label.name}'))
    with pytest.raises(UserError, match=rf"train: 6 label files .*'{labels[0].name}' for '{labels[0].stem}.png'"):
        find_own_data(folder)


def test_no_file_is_replaced_that_another_program_or_config_may_need(shapes, tmp_path, capsys):
    folder, out = write_yolo(shapes, tmp_path / 'yolo'), tmp_path / 'my.py'
    command = ['init', str(folder), '--out', str(out), '--start', 'small']
    theirs = folder / 'coco_val.json'
    for content in ('{"images": [], "annotations": [], "categories": []}', 'no JSON'):
        theirs.write_text(content)
        assert main([*command, '--force']) == 2
        assert f"'{theirs}' exists and was not written by mmcondetr init" in capsys.readouterr().err
        assert theirs.read_text() == content and not out.exists() and not (folder / 'coco_train.json').exists()
    theirs.unlink()
    assert main(command) == 0
    before = (folder / 'coco_train.json').read_text()
    assert main([*command[:3], str(tmp_path / 'second.py'), *command[4:]]) == 0  # the same content
    next((folder / 'labels' / 'train').glob('*.txt')).write_text('0 .5 .5 .2 .2\n')
    capsys.readouterr()
    assert main([*command[:3], str(tmp_path / 'third.py'), *command[4:]]) == 2
    assert 'exists, from an earlier mmcondetr init of other labels' in capsys.readouterr().err
    assert (folder / 'coco_train.json').read_text() == before
    assert main([*command, '--force']) == 0 and (folder / 'coco_train.json').read_text() != before


def test_one_part_of_a_split_is_not_split_again(shapes, tmp_path):
    shutil.copytree(shapes / 'train', tmp_path / 'train')
    source = shutil.copy(shapes / 'annotations' / 'train.json', tmp_path / 'birds.json')
    found = find_own_data(source)
    assert found.files['train'].name == 'coco_birds_train.json'
    with pytest.raises(UserError, match="coco_birds_train.json' is named like one part of a split: pass the other as"):
        find_own_data(found.files['train'])
