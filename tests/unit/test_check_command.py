"""mmcondetr check: each problem of the data is one line, and the exit code reports errors."""

import json
import shutil

import pytest
from own_data_files import make_shapes, write_yolo
from PIL import Image

from mmcondetr.cli import main
from mmcondetr.datasets.panoptic_png import read_panoptic_png, write_panoptic_png


@pytest.fixture
def config(tmp_path, capsys):
    folder = write_yolo(make_shapes(tmp_path / 'shapes'), tmp_path / 'yolo')
    assert main(['init', str(folder), '--out', str(tmp_path / 'my.py'), '--start', 'small']) == 0
    capsys.readouterr()
    return tmp_path / 'my.py'


def check(config, *more) -> int:
    return main(['check', str(config), '--out', str(config.parent / 'out'), *map(str, more)])


def change(path, spoil):
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))


def test_good_data(config, capsys):
    assert check(config, '--samples', 2) == 0
    output = capsys.readouterr().out
    assert 'no errors' in output and 'torch: ' in output
    boxes = len(json.loads((config.parent / 'yolo' / 'coco_train.json').read_text())['annotations'])
    assert any(line.split()[:2] == ['boxes', str(boxes)] for line in output.splitlines())
    page = (config.parent / 'out' / 'data.html').read_text()
    assert page.count('data:image/jpeg') == 6 and 'augmented (2)' in page


def test_what_is_wrong_is_a_line_each(config, capsys):
    yolo = config.parent / 'yolo'
    images = sorted((yolo / 'images' / 'train').glob('*.png'))
    images[0].write_bytes(images[0].read_bytes()[:200])
    images[1].unlink()
    held_out = sorted((yolo / 'images' / 'val').glob('*.png'))
    shutil.copy(images[2], held_out[0])
    change(yolo / 'coco_val.json', lambda content: content['annotations'][0].update(category_id=77))
    assert check(config) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 5 and errors[-1].startswith('error: 4 errors')
    for part in (images[0].name, images[1].name, '77', '1 image is in train and in val'):
        assert sum(part in line for line in errors[:-1]) >= 1, part
    assert '4 errors' in (config.parent / 'out' / 'data.html').read_text()


def test_images_of_a_wrong_size_and_missing_ones_are_counted_in_a_line_each(config, capsys):
    yolo = config.parent / 'yolo'
    change(yolo / 'coco_train.json', lambda content: [image.update(width=96) for image in content['images']])
    images = sorted((yolo / 'images' / 'val').glob('*.png'))
    for image in images[:2]:
        image.unlink()
    assert check(config) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')][:-1]
    sizes, missing = errors
    assert sizes.startswith('error: train: 6 of 6 images have another size (width x height) than in ')
    assert sizes.count(".png' (64x64 instead of 96x64)") == 3  # the first of six
    assert f'--image-sizes {yolo}/' in sizes and 'train_dataloader.dataset.ann_file=' in sizes
    assert 'swapped' not in sizes
    assert missing.startswith('error: val: 2 of 3 image files of ') and str(images[0]) in missing
    change(yolo / 'coco_val.json', lambda content: [image.update(width=32, height=64) for image in content['images']])
    for image in images[:2]:
        Image.new('RGB', (64, 32)).save(image)
    Image.new('RGB', (64, 64)).save(images[2])
    assert check(config) == 1
    assert 'Width and height are swapped in 2 of them; ' in capsys.readouterr().err


def test_a_config_that_does_not_fit_its_data(config, capsys):
    config.write_text(config.read_text().replace('num_classes=6', 'num_classes=5') + "load_from = 'gone.pth'\n")
    assert check(config, '--no-images', '--samples', 0) == 1
    output = capsys.readouterr().err
    assert 'num_classes=5, but train has 6 classes' in output and "checkpoint 'gone.pth' does not exist" in output


def test_copies_within_a_part_are_a_warning(config, capsys):
    images = sorted((config.parent / 'yolo' / 'images' / 'train').glob('*.png'))
    shutil.copy(images[0], images[1])
    assert check(config, '--samples', 0) == 0
    assert 'warning: train: 1 image is a copy of another' in capsys.readouterr().out


def test_more_objects_than_queries_are_a_warning(config, capsys):
    assert check(config, '--no-images', '--samples', 0, '--cfg-options', 'model.num_queries=2') == 0
    said = capsys.readouterr().out
    assert 'warning: train: an image has ' in said and 'more than can be found with model.num_queries=2' in said
    assert 'max_per_img' not in said


def test_a_setting_that_training_refuses_is_an_error_here(config, capsys):
    options = ['--cfg-options', 'model.test_cfg.max_per_img=0.5']
    assert check(config, '--no-images', '--samples', 0, *options) == 1
    message = f"error: Config '{config}': model.test_cfg.max_per_img: must be a whole number, 1 or more, not 0.5"
    assert message in capsys.readouterr().err


def test_masks_that_are_trained_or_measured(config, capsys):
    """The files were made from YOLO's boxes; --samples 0, so that no item of the training set is loaded."""
    options = ['--no-images', '--samples', '0', '--cfg-options']
    missing = r'[0].segmentation (id 1, image 1) is missing'
    assert check(config, *options, 'val_evaluator.metric=segm') == 1
    errors = capsys.readouterr().err
    assert errors.count(missing) == 1 and 'error: val, ' in errors and 'coco_val.json' in errors
    assert check(config, *options, 'train_dataloader.dataset.pipeline.1.with_mask=True') == 1
    errors = capsys.readouterr().err
    assert errors.count(missing) == 1 and 'error: train, ' in errors and 'more such errors' in errors


def test_panoptic_data_with_every_png(tmp_path, monkeypatch, capsys):
    root = tmp_path / 'shapes'
    monkeypatch.setenv('SHAPES_ROOT', f'{root}/')
    config = tmp_path / 'panoptic.py'
    small = 'dict(dataset=dict(generate=dict(num_train=18, num_val=2, image_size=64)))'
    config.write_text(
        "_base_ = 'mmcondetr::masks/conditional-detr_r18_small-panoptic_1xb8-12e_shapes.py'\nload_from = None\n"
        f'train_dataloader = {small}\nval_dataloader = {small}\ntest_dataloader = {small}\n'
    )
    assert check(config) == 0, capsys.readouterr().err
    config.write_text(config.read_text() + 'model = dict(mask_head=dict(panoptic=dict(num_things=5)))\n')
    assert check(config, '--no-images') == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 3 and 'num_things=5, but train_dataloader.dataset has 6' in errors[0]
    last = sorted((root / 'panoptic_train').glob('*.png'))[-1]  # training decodes the first 16 at its start
    write_panoptic_png(last, read_panoptic_png(str(last), 'field') + 1)
    assert check(config) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 3 and f"'{last}'" in errors[0] and 'num_things=5, but val_dataloader' in errors[1], errors
    for image in sorted((root / 'train').glob('*.png'))[16:]:
        Image.new('RGB', (32, 64)).save(image)
    assert check(config) == 1
    (sizes,) = [line for line in capsys.readouterr().err.splitlines() if 'another size' in line]
    assert 'train: 2 of 18 images have' in sizes and sizes.endswith('correct width and height there')


MASKED = """
_base_ = './my.py'
mask_head = dict(type='mmcondetr.MaskHead', embed_dims=64, lateral_channels=(32, 64), num_groups=4)
model = dict(backbone=dict(out_indices=(0, 1, 2)), mask_head=mask_head)
"""


def test_a_mask_head_that_does_not_fit_or_is_not_trained_on_masks(config, capsys):
    masked = config.with_name('masked.py')
    masked.write_text(MASKED)
    assert check(masked, '--no-images', '--samples', 0) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert errors[0].startswith('error: train_dataloader.dataset.pipeline: model.mask_head is trained on masks')
    assert errors[1].startswith('error: model.mask_head.embed_dims=64: must be the width of queries and tokens, 128')
    assert len(errors) == 3 and '2 errors, above' in errors[2]
