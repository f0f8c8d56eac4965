"""200 damaged variants of valid files: each is refused with a message or loads equal tensors, and none is changed."""

import os
import pickle
import random
import zipfile

import pytest
import torch
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file
from tiny_model import build, tiny_config

from mmcondetr.checkpoints import adapting
from mmcondetr.checkpoints.conversion import convert
from mmcondetr.checkpoints.renaming import from_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.errors import UserError


@pytest.fixture(scope='module')
def valid(tmp_path_factory):
    """An authors' .pth and what our converter makes of it, with the model that they are of."""
    folder = tmp_path_factory.mktemp('valid')
    config = tiny_config()
    config['backbone'].update(depth=18, base_channels=4, stem_channels=4)
    config['neck']['in_channels'] = [32]
    model = build(config)
    tensors = from_ours(model.state_dict(), FAMILIES['authors'], 'test')
    torch.save(dict(model=tensors, epoch=49), folder / 'authors.pth')
    convert(folder / 'authors.pth', folder / 'ours.safetensors', 'mmcondetr')
    return folder, model, {name: value.clone() for name, value in model.state_dict().items()}, tensors


@pytest.fixture
def outcome(valid, monkeypatch):
    """Load a file and return 'refused' or 'equal'; anything else is a failure. The file must stay unchanged."""
    _, model, wanted, _ = valid
    monkeypatch.setattr(adapting, 'print_log', lambda *_: None)

    def load(path):
        before, names = path.read_bytes(), sorted(os.listdir(path.parent))
        with torch.no_grad():
            for value in model.state_dict().values():
                value.zero_()
        try:
            load_checkpoint(model, str(path), map_location='cpu')
            found = 'equal'
            state = model.state_dict()
            different = [
                name
                for name in wanted
                if not name.endswith('num_batches_tracked') and not torch.equal(state[name], wanted[name])
            ]
            assert not different, different
        except UserError as error:
            assert str(path) in str(error) and 'Traceback' not in str(error)
            found = 'refused'
        assert path.read_bytes() == before and sorted(os.listdir(path.parent)) == names
        return found

    return load


def _write(path, content):
    path.write_bytes(content)
    return path


def test_the_valid_files_load(valid, outcome):
    assert outcome(valid[0] / 'authors.pth') == outcome(valid[0] / 'ours.safetensors') == 'equal'


def _zip_structure(path):
    """Byte positions in a .pth that are not content: headers, paddings and the directory."""
    size = path.stat().st_size
    inside = set()
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            with open(path, 'rb') as file:
                file.seek(item.header_offset + 26)
                name, extra = (int.from_bytes(file.read(2), 'little') for _ in range(2))
            start = item.header_offset + 30 + name + extra
            inside.update(range(start, start + item.file_size))
    return [position for position in range(size) if position not in inside]


@pytest.mark.parametrize(
    'name, count, where',
    [
        ('authors.pth', 40, 'anywhere'),
        ('authors.pth', 25, 'structure'),
        ('ours.safetensors', 25, 'anywhere'),
        ('ours.safetensors', 15, 'header'),
    ],
)
def test_a_flipped_bit(valid, outcome, tmp_path, name, count, where):
    source = valid[0] / name
    content = source.read_bytes()
    choice = random.Random(f'{name}{where}')
    header = 8 + int.from_bytes(content[:8], 'little')
    positions = dict(anywhere=range(len(content)), header=range(header))
    among = _zip_structure(source) if where == 'structure' else positions[where]
    outcomes = []
    for _ in range(count):
        position = choice.choice(among)
        changed = bytearray(content)
        changed[position] ^= 1 << choice.randrange(8)
        outcomes.append(outcome(_write(tmp_path / name, bytes(changed))))
    assert outcomes.count('refused') >= (count * 3 // 4 if where == 'anywhere' else 1)


@pytest.mark.parametrize('name', ['authors.pth', 'ours.safetensors'])
def test_truncated(valid, outcome, tmp_path, name):
    content = (valid[0] / name).read_bytes()
    choice = random.Random(name)
    lengths = [0, 1, 4, 7, 9, len(content) - 1] + [choice.randrange(len(content)) for _ in range(9)]
    for length in lengths:
        assert outcome(_write(tmp_path / name, content[:length])) == 'refused', length


@pytest.mark.parametrize('count, change', [(15, 'dropped'), (15, 'renamed'), (15, 'shape')])
def test_tensors_that_are_not_what_they_were(valid, outcome, tmp_path, count, change):
    tensors = valid[3]
    choice = random.Random(change)
    for index, name in enumerate(choice.sample(sorted(tensors), count)):
        changed = dict(tensors)
        value = changed.pop(name)
        if change == 'renamed':
            changed[choice.choice(['', 'x.']) + name.replace('layer', choice.choice(['Layer', 'layers'])) + '_'] = value
        elif change == 'shape':
            changed[name] = choice.choice([value[None], value[:-1], value.flatten()[:0], torch.cat([value, value])])
        if index % 2:
            path = tmp_path / 'some.safetensors'
            save_file({key: tensor.contiguous() for key, tensor in changed.items()}, path)
        else:
            path = tmp_path / 'some.pth'
            torch.save(dict(model=changed), path)
        assert outcome(path) == 'refused', name


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'function, arguments',
    [
        (os.system, ('touch {}',)),
        (eval, ("open('{}', 'w')",)),
        (exec, ("open('{}', 'w')",)),
        (os.mkdir, ('{}',)),
        (pickle.loads, (b'.',)),
    ],
)
def test_code_is_refused_by_name_and_does_not_run(valid, outcome, tmp_path, function, arguments, zipped):
    mark = tmp_path / 'it ran'
    arguments = [text.format(mark) if isinstance(text, str) else text for text in arguments]
    path = tmp_path / 'code.pth'
    torch.save(dict(model=valid[3], args=Code(function, *arguments)), path, _use_new_zipfile_serialization=zipped)
    assert outcome(path) == 'refused' and not mark.exists()
    with pytest.raises(UserError, match=rf'{function.__name__}.*is code'):
        load_checkpoint(valid[1], str(path), map_location='cpu')


@pytest.mark.parametrize(
    'content, message',
    [
        (b'<!DOCTYPE html><html><body>404</body></html>', 'HTML'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\n', 'Git LFS'),
        (b'not a checkpoint', 'was not written by torch.save'),
        (pickle.dumps([1, 2]), ''),
        (pickle.dumps({'model': 'text'}), ''),
        (b'PK\x03\x04' + bytes(100), 'damaged'),
        (b'\x80\x02', ''),
        (bytes(1000), ''),
        (b'\xff' * 64, ''),
        (b'{}', ''),
    ],
    ids=['page', 'git-lfs', 'text', 'list', 'model', 'zip', 'pickle', 'zeros', 'ones', 'json'],
)
@pytest.mark.parametrize('name', ['other.pth', 'other.safetensors'])
def test_something_else_under_the_name_of_a_checkpoint(outcome, valid, tmp_path, content, message, name):
    path = _write(tmp_path / name, content)
    assert outcome(path) == 'refused'
    if name.endswith('.pth'):
        with pytest.raises(UserError, match=message):
            load_checkpoint(valid[1], str(path), map_location='cpu')


@pytest.mark.parametrize('value', [[1], None, 'x', 3, torch.zeros(2)])
def test_a_state_dict_that_is_none(valid, tmp_path, value):
    torch.save(dict(state_dict=value, meta={}), tmp_path / 'made.pth')
    with pytest.raises(UserError, match=r"made.pth': state_dict must contain tensors by name, but is a "):
        load_checkpoint(valid[1], str(tmp_path / 'made.pth'), map_location='cpu')


@pytest.mark.parametrize('dtype', [torch.int32, torch.complex64, torch.bool])
def test_weights_that_are_no_floating_point_numbers(valid, tmp_path, dtype):
    checkpoint = torch.load(valid[0] / 'authors.pth', weights_only=True)
    checkpoint['model'] = {name: value.to(dtype) for name, value in checkpoint['model'].items()}
    torch.save(checkpoint, tmp_path / 'made.pth')
    with pytest.raises(UserError, match=rf"made.pth': .* must hold plain floating-point numbers, but is {dtype}"):
        load_checkpoint(valid[1], str(tmp_path / 'made.pth'), map_location='cpu')


@pytest.mark.parametrize('kind', ['complex64', 'int32', 'float4_e2m1fn_x2', 'quint8'])
def test_one_weight_of_attention_that_is_no_plain_floating_point_number(valid, tmp_path, kind):
    if not hasattr(torch, kind):
        pytest.skip(f'this PyTorch has no {kind}')
    dtype = getattr(torch, kind)
    checkpoint = torch.load(valid[0] / 'authors.pth', weights_only=True)
    name = next(name for name in checkpoint['model'] if name.endswith('in_proj_bias'))
    value = torch.ones(len(checkpoint['model'][name]), dtype=torch.uint8)
    checkpoint['model'][name] = value.view(dtype) if dtype.itemsize == 1 else value.to(dtype)
    torch.save(checkpoint, tmp_path / 'made.pth')
    with pytest.raises(UserError, match=rf"made.pth': {name} must hold plain floating-point numbers, but is {dtype}"):
        load_checkpoint(valid[1], str(tmp_path / 'made.pth'), map_location='cpu')


def test_a_tensor_whose_name_is_a_number(valid, tmp_path):
    torch.save(dict(state_dict={1: torch.zeros(1)}), tmp_path / 'made.pth')
    with pytest.raises(UserError, match="made.pth': names of tensors must be strings, but one is 1"):
        load_checkpoint(valid[1], str(tmp_path / 'made.pth'), map_location='cpu')


def test_a_record_that_is_not_the_tensors(valid, outcome, tmp_path):
    """Tensors changed after the record was written, in an otherwise valid file."""
    convert(valid[0] / 'authors.pth', tmp_path / 'ours.pth', 'mmcondetr')
    checkpoint = torch.load(tmp_path / 'ours.pth', weights_only=True)
    checkpoint['state_dict']['decoder.norm.bias'][3] += 1e-6
    torch.save(checkpoint, tmp_path / 'ours.pth')
    with pytest.raises(UserError, match='SHA-256 of its tensors differs from the one in its metadata'):
        load_checkpoint(valid[1], str(tmp_path / 'ours.pth'), map_location='cpu')
