"""Converting: both ways, bit for bit but for COCO's unused rows, with a record, and never half a file."""

import datetime
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from mmengine.runner import CheckpointLoader
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import build, tiny_config

from mmcondetr.checkpoints import classes
from mmcondetr.checkpoints import conversion as module
from mmcondetr.checkpoints.conversion import TARGETS, convert
from mmcondetr.checkpoints.renaming import from_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.checkpoints.source import hash_tensors
from mmcondetr.errors import UserError

NAMES_91 = {'authors': 'class_embed', 'huggingface': 'class_labels_classifier'}


@pytest.fixture(scope='module')
def tensors():
    """Of a tiny model with the authors' 91 rows, under our names; every row is different."""
    config = tiny_config()
    config['bbox_head']['num_classes'] = 91
    state = build(config).state_dict()
    return {name: value for name, value in state.items() if not name.endswith('num_batches_tracked')}


@pytest.fixture
def source(tmp_path, tensors):
    path = tmp_path / 'ConditionalDETR_r50_epoch50.pth'
    torch.save(dict(model=from_ours(tensors, FAMILIES['authors'], 'test'), epoch=49), path)
    return path


def read(path):
    """Tensors and record of a converted file or folder."""
    if path.is_dir():
        path = path / 'model.safetensors'
    if path.suffix == '.safetensors':
        with safe_open(path, 'pt') as file:
            return load_file(path), json.loads(file.metadata()['mmcondetr'])
    checkpoint = torch.load(path, weights_only=True)
    return checkpoint.get('state_dict', checkpoint.get('model')), checkpoint['meta']['mmcondetr']


def name_of(target, ending):
    return 'converted' if target == 'huggingface' else f'converted{ending}'


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
@pytest.mark.parametrize('target', TARGETS)
def test_there_and_back(tmp_path, tensors, source, target, ending):
    before = source.read_bytes()
    there, back = tmp_path / name_of(target, ending), tmp_path / f'back{ending}'
    convert(source, there, target)
    convert(there, back, 'authors')
    original, returned = torch.load(source, weights_only=True)['model'], read(back)[0]
    unused = list(classes.UNUSED_IDS)
    assert set(returned) == set(original) and source.read_bytes() == before
    for name, value in original.items():
        if name.startswith('class_embed') and target in ('mmcondetr', 'mmdet'):
            value = value.clone()
            value[unused] = classes.UNUSED_WEIGHT if name.endswith('weight') else classes.UNUSED_BIAS
        assert torch.equal(returned[name], value), name


@pytest.mark.parametrize('target', TARGETS)
def test_the_record(tmp_path, source, target):
    path = tmp_path / name_of(target, '.safetensors')
    summary = convert(source, path, target)
    found, record = read(path)
    rows = 91 if target in NAMES_91 else 80
    assert record['format'] == target and record['source'] == source.name and record['source_family'] == 'authors'
    assert record['tensors_sha256'] == hash_tensors(found) and record['tensors_sha256'][:12] in summary
    assert datetime.datetime.fromisoformat(record['date']).tzinfo is not None
    assert len(record['classes']) == rows and record['dc5'] is False
    assert tuple(name for name in record['classes'] if name) == classes.COCO_80
    assert f'{rows} classes' in summary


def test_a_pth_of_ours_tells_detinferencer_its_classes(tmp_path, source):
    convert(source, tmp_path / 'ours.pth', 'mmcondetr')
    meta = torch.load(tmp_path / 'ours.pth', weights_only=True)['meta']
    assert tuple(meta['dataset_meta']['classes']) == classes.COCO_80


def test_counters_go_where_the_format_has_them(tmp_path):
    config = tiny_config()
    model = build(config)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'ours.pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'mmdet.pth', 'mmdet')
    convert(tmp_path / 'ours.pth', tmp_path / 'authors.pth', 'authors')
    counters = {name for name in model.state_dict() if name.endswith('num_batches_tracked')}
    assert counters <= set(read(tmp_path / 'mmdet.pth')[0])
    assert not [name for name in read(tmp_path / 'authors.pth')[0] if name.endswith('num_batches_tracked')]


def test_classes_of_ones_own_keep_their_number_and_names(tmp_path):
    torch.save(
        dict(state_dict=build(tiny_config()).state_dict(), meta=dict(dataset_meta=dict(classes=list('abcde')))),
        tmp_path / 'mine.pth',
    )
    convert(tmp_path / 'mine.pth', tmp_path / 'folder', 'huggingface', dc5=False)
    config = json.loads((tmp_path / 'folder/config.json').read_text())
    assert config['id2label'] == dict(zip('01234', 'abcde')) and config['label2id'] == dict(zip('abcde', range(5)))
    convert(tmp_path / 'folder', tmp_path / 'back.pth', 'mmcondetr')
    checkpoint = torch.load(tmp_path / 'back.pth', weights_only=True)
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == tuple('abcde')


def test_hugging_faces_two_configs(tmp_path, source):
    convert(source, tmp_path / 'folder', 'huggingface')
    assert sorted(os.listdir(tmp_path / 'folder')) == ['config.json', 'model.safetensors', 'preprocessor_config.json']
    config = json.loads((tmp_path / 'folder/config.json').read_text())
    found = [config[name] for name in ('d_model', 'num_queries', 'encoder_layers', 'decoder_layers')]
    assert found == [32, 12, 2, 3]
    assert config['backbone_config']['depths'] == [3, 4, 6, 3] and config['encoder_ffn_dim'] == 64
    assert config['id2label']['90'] == 'toothbrush' and config['id2label']['0'] == 'N/A'
    processor = json.loads((tmp_path / 'folder/preprocessor_config.json').read_text())
    assert processor['size'] == dict(shortest_edge=800, longest_edge=1333)


def test_dc5_must_be_known_for_hugging_face(tmp_path, source):
    unnamed = source.rename(tmp_path / 'checkpoint.pth')
    with pytest.raises(UserError, match='pass --dc5 or --no-dc5'):
        convert(unnamed, tmp_path / 'folder', 'huggingface')
    convert(unnamed, tmp_path / 'ours.pth', 'mmcondetr', dc5=True)
    convert(tmp_path / 'ours.pth', tmp_path / 'folder', 'huggingface')
    assert json.loads((tmp_path / 'folder/config.json').read_text())['dilation'] is True


@pytest.mark.parametrize(
    'target, to, message',
    [
        ('out.bin', 'mmcondetr', 'must end in .pth or .safetensors'),
        ('out.pth', 'huggingface', 'is a folder; use a name without .pth'),
        ('nowhere/out.pth', 'mmdet', 'does not exist'),
        ('out.pth', 'detrex', 'must be one of mmcondetr, mmdet, authors, huggingface'),
    ],
)
def test_wrong_targets(tmp_path, source, target, to, message):
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / target, to)
    assert os.listdir(tmp_path) == [source.name]


def test_wrong_sources(tmp_path, source):
    torch.save(dict(state_dict={'conv1.weight': torch.zeros(1)}), tmp_path / 'other.pth')
    with pytest.raises(UserError, match='not a recognised Conditional DETR checkpoint'):
        convert(tmp_path / 'other.pth', tmp_path / 'out.pth', 'mmdet')
    with pytest.raises(UserError, match='does not exist'):
        convert(tmp_path / 'missing.pth', tmp_path / 'out.pth', 'mmdet')
    checkpoint = torch.load(source, weights_only=True)
    del checkpoint['model']['transformer.decoder.layers.1.norm3.bias']
    torch.save(checkpoint, source)
    with pytest.raises(UserError, match=r'decoder\.layers\.1\.norm3\.bias'):
        convert(source, tmp_path / 'out.pth', 'mmdet')
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('target', ['mmcondetr', 'huggingface'])
def test_nothing_is_overwritten_without_force(tmp_path, source, target):
    path = tmp_path / name_of(target, '.pth')
    convert(source, path, target)
    before = read(path)[1]
    with pytest.raises(UserError, match='already exists; --force replaces it'):
        convert(source, path, target)
    assert read(path)[1] == before
    convert(source, path, target, dc5=True, force=True)
    assert read(path)[1]['dc5'] is True
    assert sorted(os.listdir(tmp_path)) == sorted([source.name, path.name])


def test_force_does_not_replace_a_folder_of_something_else(tmp_path, source):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/one.jpg').write_text('')
    with pytest.raises(UserError, match='folder without a config.json'):
        convert(source, tmp_path / 'photos', 'huggingface', force=True)
    assert (tmp_path / 'photos/one.jpg').exists()


@pytest.mark.parametrize('target', ['mmcondetr', 'huggingface'])
def test_a_failure_while_writing_leaves_what_was_there(tmp_path, source, target, monkeypatch):
    path = tmp_path / name_of(target, '.pth')
    convert(source, path, target)
    before = read(path)[1]

    def fail(file, *_):
        with open(file, 'wb') as half:
            half.write(b'half')
        raise OSError('No space left on device')

    monkeypatch.setattr(module, '_save', fail)
    with pytest.raises(OSError, match='No space left'):
        convert(source, path, target, force=True)
    assert read(path)[1] == before and sorted(os.listdir(tmp_path)) == sorted([source.name, path.name])


def test_the_command_line(tmp_path, source, root, source_environment):
    tool, target = root / 'tools/convert_checkpoint.py', tmp_path / 'out.safetensors'
    command = [sys.executable, str(tool), str(source), str(target)]
    runs = [
        subprocess.run([*command, '--to', 'mmcondetr'], capture_output=True, text=True, env=source_environment)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 1]
    assert "the authors' code" in runs[0].stdout and '80 classes' in runs[0].stdout
    assert '--force replaces it' in runs[1].stderr and 'Traceback' not in runs[1].stderr


def test_half_precision_on_request(tmp_path, source, tensors):
    convert(source, tmp_path / 'half.safetensors', 'authors', half=True)
    halved, record = read(tmp_path / 'half.safetensors')
    assert record['tensors_sha256'] == hash_tensors(halved)
    assert {value.dtype for value in halved.values() if value.is_floating_point()} == {torch.float16}
    for name, value in from_ours(tensors, FAMILIES['authors'], 'test').items():
        assert torch.allclose(halved[name].float(), value.float(), rtol=1e-3, atol=1e-6), name


def three_stages():
    config = tiny_config()
    config['backbone'].update(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,))
    config['neck']['in_channels'] = [128]
    return dict(build(config).state_dict())


def test_a_backbone_of_fewer_stages_is_complete(tmp_path):
    torch.save(dict(state_dict=three_stages()), tmp_path / 'small.pth')
    convert(tmp_path / 'small.pth', tmp_path / 'small.safetensors', 'mmcondetr')
    assert read(tmp_path / 'small.safetensors')[0].keys() == three_stages().keys()


def test_a_last_stage_that_the_neck_wants_is_missing(tmp_path, tensors):
    rest = {name: value for name, value in tensors.items() if not name.startswith('backbone.layer4.')}
    torch.save(dict(state_dict=rest), tmp_path / 'cut.pth')
    with pytest.raises(UserError, match='backbone.layer4.0.conv1.weight'):
        convert(tmp_path / 'cut.pth', tmp_path / 'cut.safetensors', 'mmcondetr')


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_weights_that_are_not_finite_are_neither_loaded_nor_converted(tmp_path, source, value):
    checkpoint = torch.load(source, weights_only=True)
    name = next(name for name in checkpoint['model'] if name.endswith('decoder.norm.bias'))
    checkpoint['model'][name][3] = float(value)
    torch.save(checkpoint, source)
    message = rf'ConditionalDETR_r50_epoch50.pth. holds NaN or infinite numbers in 1 of \d+ tensors \({name}\)'
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / 'converted.pth', 'mmcondetr')
    assert not (tmp_path / 'converted.pth').exists()
    with pytest.raises(UserError, match=message):
        CheckpointLoader.load_checkpoint(str(source), 'cpu')


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize(
    'kind', ['float8_e5m2', 'float8_e4m3fn', 'float8_e4m3fnuz', 'float8_e5m2fnuz', 'float8_e8m0fnu', 'float64']
)
def test_weights_that_are_not_finite_in_float32_are_named_whatever_their_type(tmp_path, suffix, kind):
    """Types of 8 bits were not looked at, and a float64 became infinite in the model."""
    if not hasattr(torch, kind):
        pytest.skip(f'this PyTorch has no {kind}')
    name, path = 'decoder.norm.bias', tmp_path / f'made.{suffix}'
    value = torch.full((4,), 1e300 if kind == 'float64' else math.nan, dtype=torch.float64).to(getattr(torch, kind))

    def load(weights):
        try:
            save_file(weights, path) if suffix == 'safetensors' else torch.save(dict(state_dict=weights), path)
            return CheckpointLoader.load_checkpoint(str(path), 'cpu')
        except KeyError as error:
            pytest.skip(f'safetensors: {error}')

    load({name: torch.ones(4).to(value.dtype)})
    with pytest.raises(UserError, match=rf'holds NaN or infinite numbers in 1 of 1 tensors \({name}\), read as float'):
        load({name: value})


def test_weights_too_large_for_float16_are_not_halved(tmp_path, source):
    checkpoint = torch.load(source, weights_only=True)
    name = next(name for name in checkpoint['model'] if name.endswith('decoder.norm.bias'))
    checkpoint['model'][name][3] = 70_000.0
    torch.save(checkpoint, source)
    with pytest.raises(UserError, match=r'norm.bias holds numbers beyond 65504, .* without --half'):
        convert(source, tmp_path / 'halved.pth', 'mmcondetr', half=True)
    assert not (tmp_path / 'halved.pth').exists()
    convert(source, tmp_path / 'whole.pth', 'mmcondetr')


def test_averaged_weights_that_are_not_finite_are_named(tmp_path, source):
    """A resumed training goes on with them; its loss was NaN, and the images were blamed."""
    checkpoint = torch.load(source, weights_only=True)
    name = next(name for name in checkpoint['model'] if name.endswith('decoder.norm.bias'))
    averaged = {f'module.{key}': value.clone() for key, value in checkpoint['model'].items()} | dict(steps=5)
    torch.save({**checkpoint, 'ema_state_dict': averaged}, tmp_path / 'a.pth')
    CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), 'cpu')
    averaged[f'module.{name}'][3] = float('nan')
    torch.save({**checkpoint, 'ema_state_dict': averaged}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=rf'holds NaN .* in 1 of \d+ tensors \(ema_state_dict.module.{name}\)'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), 'cpu')
