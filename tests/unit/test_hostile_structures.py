"""Small files that would keep a reader busy for ever, lead it elsewhere by a link, or write to the terminal."""

from __future__ import annotations

import json
import os
import pickle
import re
import secrets
import time
import zipfile
from collections import Counter, OrderedDict
from types import SimpleNamespace

import pytest
import torch
from archive_files import rewritten
from mmengine.runner import Runner, load_checkpoint
from tiny_model import build, tiny_config

from mmcondetr.checkpoints.download import final_path
from mmcondetr.checkpoints.files import load_file
from mmcondetr.checkpoints.reading import load_from_file
from mmcondetr.checkpoints.renaming import from_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.cli.common import check_written_names, run_guarded
from mmcondetr.engine.folder_lock import NAME, lock_folder
from mmcondetr.engine.written_files import WrittenFiles
from mmcondetr.errors import UserError
from mmcondetr.writing import replacing

LEVELS = 27  # of tuples that hold the former twice: hashing or printing such a one takes a minute, with 60 for ever
KEY = b'K\x01\x85' + b'2\x86' * LEVELS
STREAMS = {
    'key of a dict': b'}' + KEY + b'K\x01s',
    'keys of a dict': b'}(' + KEY + b'K\x01u',
    'key of a dict, flat': b'}K\x01K\x02\x86K\x01s',  # whoever writes the numbers can choose the hash
    'key of a dict, protocol 0': b'(' + KEY + b'K\x01d',
    'member of a set': b'\x8f(' + KEY + b'\x90',
    'member of a frozenset': b'(' + KEY + b'\x91',
    'made into a set': b'cbuiltins\nset\n(' + KEY + b'l\x85R',
    'counted': b'ccollections\nCounter\n(' + KEY + b'l\x85R',
    'key of an OrderedDict': b'ccollections\nOrderedDict\n((' + KEY + b'K\x01tl\x85R',
    'called': KEY + b')R',
    'codec': b'c_codecs\nencode\nX\x01\x00\x00\x00x' + KEY + b'\x86R',
    'attribute': b'cbuiltins\ngetattr\n' + KEY + b'X\x03\x00\x00\x00min\x86R',
    'dtype': b'cnumpy\ndtype\n' + KEY + b'\x85R',
}


@pytest.mark.parametrize('name', STREAMS)
def test_what_would_be_hashed_or_printed_for_ever(tmp_path, name):
    torch.save({}, tmp_path / 'a.pth')
    rewritten(tmp_path / 'a.pth', lambda _: b'\x80\x02' + STREAMS[name] + b'.')
    started = time.process_time()
    with pytest.raises(UserError, match=r"a\.pth'"):
        load_file(tmp_path / 'a.pth')
    assert time.process_time() - started < 2


def doubled() -> list:
    value: list = [1]
    for _ in range(LEVELS):
        value = [value, value]
    return value


def nested() -> list:
    value: list = []
    for _ in range(150):
        value = [value]
    return value


def endless() -> dict:
    value: dict = {}
    value['self'] = [value]
    return value


def _loaded(folder, stream):
    torch.save({}, folder / 'a.pth')
    rewritten(folder / 'a.pth', lambda _: b'\x80\x02}X\x04\x00\x00\x00meta' + stream + b's.')
    return load_file(folder / 'a.pth')['meta']


def test_a_counter_has_the_counts_that_are_set(tmp_path):
    """Its ``update`` would count the pairs, and hash what may be hashed for ever."""
    counter = b'ccollections\nCounter\n)R'
    assert _loaded(tmp_path, counter + b'K\x28K\x02s') == Counter({40: 2})
    assert _loaded(tmp_path, counter + b'(K\x28K\x02K\x29K\x01u') == Counter({40: 2, 41: 1})
    start = time.monotonic()
    with pytest.raises(UserError, match='values that are shared so often'):
        _loaded(tmp_path, counter + b'X\x01\x00\x00\x00k' + KEY + b's')
    assert time.monotonic() - start < 2


def test_numbers_with_one_hash_are_no_keys(tmp_path):
    """Python hashes them modulo 2**61 - 1: with 20,000 multiples, filling a dict took 2 s, with 200,000 200 s."""
    for key in (2**61 - 1, -(2**61 - 1), 3 * (2**61 - 1)):
        with pytest.raises(UserError, match='a key of more than 60 bits'):
            _loaded(tmp_path, b'}' + pickle.dumps(key, 2)[2:-1] + b'Ns')
    assert _loaded(tmp_path, b'}' + pickle.dumps(2**53, 2)[2:-1] + b'Ns') == {2**53: None}


ENCODE = b'c_codecs\nencode\nq\x01'
DATA = b'X' + (1 << 20).to_bytes(4, 'little') + b'a' * (1 << 20) + b'q\x02'
ARGUMENTS = b'X\x06\x00\x00\x00latin1q\x03'
NAMESPACE = b'cargparse\nNamespace\n)\x81'
MANY = b''.join(b'X\x05\x00\x00\x00%05dN' % number for number in range(20_000))
COPIES = {  # the parts that are copied, and one copy
    'texts as bytes': (ENCODE + DATA + ARGUMENTS, b'h\x01h\x02h\x03\x86R'),
    'dicts': (b'ccollections\nOrderedDict\nq\x01}(' + MANY + b'uq\x02', b'h\x01h\x02\x85R'),
    'sets': (b'cbuiltins\nset\nq\x01}(' + MANY + b'uq\x02', b'h\x01h\x02\x85R'),
    'counters': (b'ccollections\nCounter\nq\x01}(' + MANY + b'uq\x02', b'h\x01h\x02\x85R'),
    'sizes': (b'ctorch\nSize\nq\x01(' + b'K\x01' * 50_000 + b'tq\x02', b'h\x01h\x02\x85R'),
    'namespaces': (b'}(' + MANY + b'uq\x02', NAMESPACE + b'h\x02b'),
    'metadata': (
        b'}X\x09\x00\x00\x00_metadata}(' + MANY.replace(b'N', b'}') + b'usq\x02ccollections\nOrderedDict\nq\x01',
        b'h\x01)Rh\x02b',
    ),
}


@pytest.mark.parametrize('name', COPIES)
def test_one_value_is_not_copied_a_thousand_times(tmp_path, name):
    """Each copy takes five bytes of the file."""
    parts, copy = COPIES[name]
    _loaded(tmp_path, b'](' + parts + copy * 2 + b'e')
    with pytest.raises(UserError, match='values of .* bytes in a file of'):
        _loaded(tmp_path, b'](' + parts + copy * 1000 + b'e')


@pytest.mark.parametrize(
    'listed', [[], ['0'], ['0', '1', '1'], ['0', '2'], ['0', 1], None, {'0': 0, '1': 1}, ['0', ['1']]]
)
def test_storages_that_are_not_in_a_file_without_archive(tmp_path, listed):
    """torch.load fills those that are in the list behind the pickle; the others held what the memory held before."""
    path = tmp_path / 'a.pth'
    weights = dict(state_dict=dict(a=torch.ones(4), b=torch.ones(4)))
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    keys = sorted(set(re.findall(rb'X.\0\0\0([0-9]{6,20})', content)))
    assert len(keys) == 2
    for number, key in enumerate(keys):
        content = content.replace(len(key).to_bytes(4, 'little') + key, b'\x01\0\0\0%d' % number)
    kept = pickle.dumps(['0', '1'], 2)
    start = content.index(b']q\x00(X\x01\x00\x00\x000') - 2
    size = content[start:].index(b'e.') + 2
    path.write_bytes(content[:start] + kept + content[start + size :])
    assert load_file(path)['state_dict']['b'].tolist() == [1] * 4
    path.write_bytes(content[:start] + pickle.dumps(listed, 2) + content[start + size :])
    with pytest.raises(UserError, match=r"a.pth' is refused: it holds storages whose content is not in the file"):
        load_file(path)


@pytest.mark.parametrize('opcode', [b'\x8d', b'\x8e', b'\x95'], ids=['text', 'bytes', 'frame'])
def test_a_value_longer_than_the_file(tmp_path, opcode):
    """Python's files allocate what they are asked for, before they read."""
    (tmp_path / 'a.pth').write_bytes(b'\x80\x04' + opcode + (10**15).to_bytes(8, 'little') + b'abc.')
    with pytest.raises(UserError, match='it is truncated or was not written by torch.save'):
        load_file(tmp_path / 'a.pth')


def test_of_a_state_dicts_metadata_only_versions_are_read(tmp_path):
    """``assign_to_params_buffers`` in it replaced the parameters that an optimizer had: training changed nothing."""
    model, state = torch.nn.Linear(2, 2), OrderedDict(torch.nn.Linear(2, 2).state_dict())
    state._metadata = OrderedDict({'': dict(version=1, assign_to_params_buffers=True, mmcondetr=dict(names=5))})
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'a.pth')
    before = model.weight
    load_checkpoint(model, str(tmp_path / 'a.pth'), map_location='cpu')
    assert model.weight is before and torch.equal(model.weight, state['weight'])
    assert load_file(tmp_path / 'a.pth')['state_dict']._metadata == {'': dict(version=1)}


@pytest.mark.parametrize('metadata', [5, [1], {'': 5}, {5: {}}, None])
def test_metadata_of_a_state_dict_that_are_none(tmp_path, metadata):
    state = OrderedDict(weight=torch.zeros(1))
    state._metadata = metadata
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='_metadata that is not a dict of dicts'):
        load_file(tmp_path / 'a.pth')


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize(
    ('value', 'said'),
    [(doubled, 'shared so often that'), (nested, 'nested more than 100 deep'), (endless, 'contains itself')],
)
def test_what_cannot_be_copied_to_an_end(tmp_path, value, said, zipped):
    torch.save(dict(meta=dict(epoch=value())), tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=said):
        load_file(tmp_path / 'a.pth')


def test_an_archive_of_two_gigabytes_in_two_megabytes(tmp_path):
    torch.save(dict(weight=torch.zeros(4)), tmp_path / 'a.pth')
    with zipfile.ZipFile(tmp_path / 'a.pth') as archive:
        records = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
        archive.writestr('a/data/bomb', bytes(1 << 27))
    content = bytearray((tmp_path / 'a.pth').read_bytes())
    directory = content.rfind(b'PK\x01\x02')
    content[directory + 24 : directory + 28] = (1 << 31).to_bytes(4, 'little')  # says that it is more
    (tmp_path / 'a.pth').write_bytes(content)
    started = time.process_time()
    with pytest.raises(UserError, match='compressed records'):
        load_from_file(str(tmp_path / 'a.pth'))
    assert time.process_time() - started < 1, 'nothing was unpacked'


@pytest.fixture(scope='module')
def tensors():
    config = tiny_config()
    return build(config).state_dict()


@pytest.mark.parametrize(
    'meta',
    [
        dict(CLASSES=7),
        dict(mmcondetr=dict(classes=3, dc5='x')),
        dict(mmcondetr=[1]),
    ],
    ids=str,
)
def test_class_names_that_are_none(tmp_path, tensors, meta):
    torch.save(dict(state_dict=tensors, meta=meta), tmp_path / 'a.pth')
    assert len(load_from_file(str(tmp_path / 'a.pth'))['state_dict']) == len(tensors)


@pytest.mark.parametrize('value', [None, [1], 5, dict(classes=5), dict(classes=[1, [2], {}])], ids=str)
def test_a_dataset_meta_that_is_none(tmp_path, tensors, value):
    """mmdet's inferencers use it unchecked."""
    torch.save(dict(state_dict=tensors, meta=dict(dataset_meta=value)), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r"a.pth': meta.dataset_meta(.classes)? must be"):
        load_from_file(str(tmp_path / 'a.pth'))


@pytest.fixture
def folder(tmp_path, tensors):
    """As Hugging Face's."""
    torch.save(from_ours(tensors, FAMILIES['huggingface'], 'test'), tmp_path / 'pytorch_model.bin')
    return tmp_path


@pytest.mark.parametrize(
    'config',
    [
        b'[' * 100_000,
        b'[1]',
        b'{"model_type": "conditional_detr", "id2label": {"x": "a"}, "dilation": "yes"}',
        b'{"model_type": ["conditional_detr"]}',
        b'\xff\xfe',
    ],
    ids=['deep', 'a list', 'other numbers', 'no type', 'no text'],
)
def test_a_hugging_face_config_that_is_none(folder, config):
    (folder / 'config.json').write_bytes(config)
    assert load_from_file(str(folder))['state_dict']


@pytest.mark.skipif(os.name != 'posix', reason='about links to devices')
def test_a_hugging_face_config_that_is_a_link_to_a_device(folder):
    (folder / 'config.json').symlink_to('/dev/zero')
    assert load_from_file(str(folder))['state_dict']


@pytest.mark.skipif(os.name != 'posix', reason='about symbolic links')
def test_a_lock_that_is_a_link_empties_no_file(tmp_path):
    precious = tmp_path / 'precious'
    precious.write_text('precious')
    work = tmp_path / 'work'
    work.mkdir()
    (work / NAME).symlink_to(precious)
    with pytest.raises(UserError, match='is not a regular file'):
        lock_folder(work)
    assert precious.read_text() == 'precious'


@pytest.mark.skipif(os.name != 'posix', reason='about symbolic links and pipes')
def test_the_config_is_not_written_through_a_link(tmp_path):
    """mmengine dumps the config into the work directory, where a stranger may have put a link of its name."""
    config = SimpleNamespace(work_dir=str(tmp_path), filename='configs/mine.py')
    check_written_names(config)
    (tmp_path / 'mine.py').symlink_to(tmp_path.parent)
    with pytest.raises(UserError, match='mine.py in it is not of ours'):
        check_written_names(config)
    (tmp_path / 'mine.py').unlink()
    (tmp_path / 'mine.py').write_text('of an earlier run')
    check_written_names(config)
    (tmp_path / 'mine.py').unlink()
    os.mkfifo(tmp_path / 'mine.py')
    with pytest.raises(UserError, match='mine.py in it is not of ours'):
        check_written_names(config)


def _runner(folder, name):
    return Runner(torch.nn.Linear(1, 1), str(folder), experiment_name=name, default_scope='mmdet')


@pytest.mark.skipif(os.name != 'posix', reason='about symbolic links')
@pytest.mark.parametrize('planted', ['folder', 'file', 'link', 'broken link', 'config'])
def test_the_log_is_not_written_into_a_folder_that_was_there(tmp_path, monkeypatch, planted):
    """A stranger's work directory may contain folders for the coming seconds, with links in the place of the logs."""
    now = time.time()
    monkeypatch.setattr(time, 'time', lambda: now)
    name = time.strftime('%Y%m%d_%H%M%S', time.localtime(now))
    precious, work = tmp_path / 'precious', tmp_path / 'work'
    precious.write_text('precious')
    work.mkdir()
    if planted == 'folder':
        (work / name / 'vis_data').mkdir(parents=True)
        for place in (f'{name}.log', 'vis_data/config.py', 'vis_data/scalars.json', f'vis_data/{name}.json'):
            (work / name / place).symlink_to(precious)
    elif planted == 'file':
        (work / name).write_text('')
    else:
        targets = {'link': tmp_path, 'broken link': tmp_path / 'new', 'config': precious}
        (work / (f'{name}.py' if planted == 'config' else name)).symlink_to(targets[planted])
    first, second = (_runner(work, f'{planted}{n}') for n in range(2))
    for runner in (first, second):  # in the same second
        runner.dump_config()
        runner.logger.info('written')
        assert re.fullmatch(rf'{name}_[0-9a-f]{{8}}', runner.timestamp)
        assert (work / runner.timestamp / f'{runner.timestamp}.log').is_file()
    assert first.timestamp != second.timestamp
    assert precious.read_text() == 'precious' and sorted(path.name for path in tmp_path.iterdir()) == [
        'precious',
        'work',
    ]


def test_the_log_folder_is_named_by_the_second(tmp_path, monkeypatch):
    monkeypatch.setattr(time, 'time', lambda: 1e9 + secrets.randbelow(10**8))
    runner = _runner(tmp_path, 'named by the second')
    assert re.fullmatch(r'\d{8}_\d{6}', runner.timestamp) and (tmp_path / runner.timestamp).is_dir()


def test_two_runs_of_one_second_log_into_their_own_files(tmp_path, monkeypatch):
    """mmengine finds a logger by the config's name and the second: in another folder, too."""
    now = time.time()
    monkeypatch.setattr(time, 'time', lambda: now)
    first, second = (_runner(tmp_path / folder, 'the same') for folder in 'ab')
    assert first.logger is not second.logger and first.message_hub is not second.message_hub
    second.logger.info('of the second run')
    (log,) = (tmp_path / 'b').glob('*/*.log')
    assert 'of the second run' in log.read_text()


def test_the_name_of_a_temporary_file_cannot_be_guessed(tmp_path):
    seen = set()
    for _ in range(3):
        with replacing(tmp_path / 'a.json') as temporary:
            temporary.write_text(json.dumps(1))
            seen.add(temporary.name)
    assert len(seen) == 3 and all(name.endswith(f'.{os.getpid()}.tmp') for name in seen)
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']


@pytest.mark.parametrize('name', ['..', '.', '', '%2e%2e', 'a%2F..%2F..%2Fb.pth', 'a%00b.pth', '..%5C..%5Cb.pth'])
def test_the_name_of_a_download_stays_in_its_folder(tmp_path, name):
    path = final_path(f'https://host/files/{name}', tmp_path)
    assert path.parent.parent == tmp_path and path.name not in ('', '.', '..') and '\0' not in path.name
    assert path.resolve() == path and '\\' not in path.name


def test_a_message_does_not_steer_the_terminal(tmp_path, capsys):
    torch.save({}, tmp_path / 'a.pth')
    rewritten(tmp_path / 'a.pth', lambda _: b'\x80\x02c\x1b]0;owned\x07\nname\n.')
    assert run_guarded(lambda: load_file(tmp_path / 'a.pth')) == 2
    said = capsys.readouterr().err
    assert "asks for '\\x1b]0;owned\\x07.name'" in said and '\x1b' not in said


@pytest.mark.parametrize(
    'known', ['[' * 100_000, 'null', '{"run": "r", "names": 5}', '{"run": "r", "names": [[1], ".."]}']
)
def test_a_list_of_written_files_that_is_none(tmp_path, known):
    (tmp_path / '.checkpoints.json').write_text(known)
    written = WrittenFiles(tmp_path, 'r')
    assert 'epoch_1.pth' not in written and '..' not in written and '[1]' not in written
    written.add('epoch_1.pth')
    assert 'epoch_1.pth' in WrittenFiles(tmp_path, written.run)
