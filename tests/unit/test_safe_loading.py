"""Handmade files: what NumPy and torch would read without checks, and how much a small file can request."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from archive_files import rewritten
from mmengine.logging import HistoryBuffer

from mmcondetr.checkpoints.files import load_file
from mmcondetr.errors import UserError
from tools.torture import archives


class Call:
    """Pickled as the call of a function, and a state for what comes out of it."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


RECONSTRUCT, SCALAR = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]


def array(dtype, shape=(1,), data=b'\x41' * 8, kind=np.ndarray):
    return Call(RECONSTRUCT, kind, (0,), b'b', state=(1, shape, dtype, False, data))


def forged(*, code='f8', flags=0, fields=None, names=None, subtype=None, order='<'):
    return Call(np.dtype, code, False, True, state=(3, order, subtype, names, fields, -1, -1, flags))


HASOBJECT = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20  # NPY_ITEM_REFCOUNT and what goes with it
FORGED = dict(
    refcount=array(forged(flags=HASOBJECT)),
    refcount_scalar=Call(SCALAR, forged(flags=HASOBJECT), b'\x41' * 8),
    object_code=array(forged(code='O8', order='|')),
    object_field=array(forged(code='V8', names=('a',), fields=dict(a=(Call(np.dtype, 'O8', False, True), 0)))),
    subarray=array(forged(code='V8', subtype=(Call(np.dtype, 'O8', False, True), (1,)))),
    void=array(Call(np.dtype, 'V8', False, True)),
    text=array(Call(np.dtype, 'U2', False, True)),
    pythons_list=array(Call(np.dtype, 'f8', False, True), data=[1]),
    short=array(Call(np.dtype, 'f8', False, True), shape=(1000,)),
    negative=array(Call(np.dtype, 'f8', False, True), shape=(-1, -1)),
    by_constructor=Call(np.ndarray, (1 << 40,)),
    no_dtype=array('f8'),
)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', FORGED)
def test_numpy_types_and_arrays_that_are_no_plain_numbers(tmp_path, name, zipped):
    path = tmp_path / 'forged.pth'
    torch.save(dict(state_dict={}, extra=FORGED[name]), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"forged.pth' is refused: it holds"):
        load_file(path)


@pytest.mark.skipif(not hasattr(torch.serialization, 'add_safe_globals'), reason='torch.load has no list to add to')
@pytest.mark.parametrize('name', FORGED)
def test_torchs_own_reader_gets_the_same_functions(tmp_path, name):
    """mmengine reads from object stores with ``torch.load``."""
    torch.save(dict(extra=FORGED[name]), tmp_path / 'forged.pth')
    with pytest.raises(Exception, match=r'NumPy|unpack|convert|Weights only load failed'):
        torch.load(tmp_path / 'forged.pth', weights_only=True)


@pytest.mark.parametrize('code', ['b1', 'u1', 'i2', 'i4', 'i8', 'u4', 'f2', 'f4', 'f8'])
def test_arrays_and_numbers_come_back_as_they_were(tmp_path, code):
    values = np.arange(6).astype(code)
    held = dict(a=values.reshape(2, 3), b=np.asfortranarray(values.reshape(2, 3)), c=values[1], d=values[:0])
    torch.save(held, tmp_path / 'a.pth')
    loaded = load_file(tmp_path / 'a.pth')
    for name, value in held.items():
        assert np.array_equal(loaded[name], value) and loaded[name].dtype == value.dtype, name
    torch.save(loaded, tmp_path / 'b.pth')  # saved again under NumPy's names, for readers without us
    assert b'mmcondetr' not in zipfile.ZipFile(tmp_path / 'b.pth').read('b/data.pkl')
    assert np.array_equal(load_file(tmp_path / 'b.pth')['b'], held['b'])


def test_a_history_is_mmengines_and_has_its_own_functions(tmp_path):
    buffer = HistoryBuffer([3.0, 1.0, 2.0], [1, 1, 1])
    state = buffer.__getstate__()
    state['statistics_methods'] = dict(min='mine')
    torch.save(dict(good=buffer, changed=Call(HistoryBuffer, state=state)), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='a call of .*History'):
        load_file(tmp_path / 'a.pth')
    torch.save(dict(good=buffer), tmp_path / 'a.pth')
    loaded = load_file(tmp_path / 'a.pth')['good']
    assert type(loaded) is HistoryBuffer and loaded.statistics('min') == 1 and loaded.data[1].dtype == np.int64
    loaded.update(5)
    assert loaded.current() == 5 and type(loaded._log_history) is np.ndarray


def stride_zero():
    return torch.zeros(1).expand(1 << 40)


BOMBS = dict(
    stride=stride_zero(),
    bytearray=Call(bytearray, 1 << 40),
    tensor=Call(torch.Tensor, 1 << 40),
    shape=Call(torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), 0, (1 << 20,), (1,), False, OrderedDict()),
    dimensions=Call(
        torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), 0, (1 << 61,) * 50_000, (1,) * 50_000, False, {}
    ),
    offset=Call(torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), 1 << 40, (1,), (1,), False, OrderedDict()),
)


@pytest.mark.filterwarnings('ignore:TypedStorage is deprecated')
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', BOMBS)
def test_more_than_is_there_is_refused_before_it_is_allocated(tmp_path, name, zipped):
    torch.save(dict(state_dict=dict(weight=BOMBS[name])), tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"a.pth' is refused: it (holds|asks for)"):
        load_file(tmp_path / 'a.pth')


def test_many_tensors_over_one_storage(tmp_path):
    """Heads may share their weights, a thousand tensors the largest storage may not."""
    whole = torch.zeros(1 << 20)
    torch.save({f'head.{index}': whole[:] for index in range(6)}, tmp_path / 'heads.pth')
    assert len(load_file(tmp_path / 'heads.pth')) == 6
    torch.save({f'head.{index}': whole[:] for index in range(99)}, tmp_path / 'many.pth')
    with pytest.raises(UserError, match='values of .* bytes in a file of'):
        load_file(tmp_path / 'many.pth')


def test_a_storage_that_reaches_beyond_its_record(tmp_path):
    torch.save(dict(weight=torch.zeros(100)), tmp_path / 'a.pth')
    rewritten(tmp_path / 'a.pth', lambda pickled: pickled.replace(b'Kd', b'K\xff'))  # BININT1 100 -> 255
    with pytest.raises(UserError, match='a storage of 1020 bytes, more than the file has for it'):
        load_file(tmp_path / 'a.pth')


def test_a_compressed_archive(tmp_path):
    torch.save(dict(weight=torch.zeros(1 << 20)), tmp_path / 'a.pth')
    rewritten(tmp_path / 'a.pth', bytes, compression=zipfile.ZIP_DEFLATED)
    assert os.path.getsize(tmp_path / 'a.pth') < 1 << 16
    with pytest.raises(UserError, match='compressed records'):
        load_file(tmp_path / 'a.pth')


def test_two_archives_in_one(tmp_path):
    torch.save(dict(weight=torch.zeros(4)), tmp_path / 'a.pth')
    with open(tmp_path / 'a.pth', 'ab') as file:
        file.write(b'comment')
    with pytest.raises(UserError, match='not as an archive does'):
        load_file(tmp_path / 'a.pth')


def test_a_tar_archive(tmp_path):
    with tarfile.open(tmp_path / 'a.pth', 'w') as archive:
        archive.addfile(tarfile.TarInfo('\x80storages'), io.BytesIO())
    with pytest.raises(UserError, match='a tar archive'):
        load_file(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    'stream',
    [
        b'}' * 1_100_000,  # one byte each, and 64 in memory
        b'r\xff\xff\xff\x7f',  # LONG_BINPUT: C's unpickler makes room for as many
        b'\x96' + (1 << 40).to_bytes(8, 'little'),  # BYTEARRAY8
        b'ctorch\nSize\n}b',  # a state for a class
        b'ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb',  # an attribute in the place of a method
        b'(iposix\nsystem\n',
        b'Pfile\n',
    ],
    ids=['many', 'memo', 'bytearray', 'class-state', 'method', 'inst', 'persid'],
)
def test_streams_that_no_checkpoint_has(tmp_path, stream):
    torch.save({}, tmp_path / 'a.pth')
    rewritten(tmp_path / 'a.pth', lambda _: b'\x80\x02' + stream + b'.')
    with pytest.raises(UserError, match='a.pth'):
        load_file(tmp_path / 'a.pth')


def test_what_else_checkpoints_hold(tmp_path):
    state = OrderedDict(weight=torch.zeros(2, 3).t(), half=torch.zeros(2, dtype=torch.bfloat16))
    state._metadata = OrderedDict({'': dict(version=1)})
    held = dict(
        state_dict=state,
        parameter=torch.nn.Parameter(torch.ones(2)),
        args=Namespace(dilation=True, lr=1e-4),
        milestones=Counter([40]),
        size=torch.Size([1, 2]),
        device=torch.device('cpu'),
        dtype=torch.float16,
        empty=torch.zeros(0, 4),
        scalar=torch.tensor(3),
        part=torch.arange(10)[2:8:3],
        bytes=b'\x00\xff',
        names={'a', 'b'},
    )
    for zipped in (True, False):
        torch.save(held, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
        loaded = load_file(tmp_path / 'a.pth')
        assert loaded['state_dict']._metadata == state._metadata and loaded['state_dict']['weight'].shape == (3, 2)
        assert isinstance(loaded['parameter'], torch.nn.Parameter) and loaded['parameter'].requires_grad
        assert loaded['part'].tolist() == [2, 5] and loaded['scalar'].item() == 3
        for name in ('args', 'milestones', 'size', 'device', 'dtype', 'bytes', 'names'):
            assert loaded[name] == held[name], name


PEAK = """
import resource, sys
import mmcondetr, torch
from mmcondetr.checkpoints.reading import load_from_file
torch.zeros(1 << 18).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_from_file(sys.argv[1], 'cpu')
except Exception as error:
    print(type(error).__name__)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='ru_maxrss in KiB')
def test_memory_is_below_three_times_the_file(tmp_path, source_environment):
    """A legal checkpoint, one of the same size that declares more, and two that unpack to more."""
    legal = {f'layer.{index}.weight': torch.rand(1 << 20) for index in range(16)}  # 64 MiB
    torch.save(dict(state_dict=legal), tmp_path / 'legal.pth')
    greedy = {**legal, **{f'copy.{index}.weight': torch.zeros(1).expand(1 << 28) for index in range(4)}}
    torch.save(dict(state_dict=greedy), tmp_path / 'greedy.pth')
    torch.save(dict(state_dict={}), tmp_path / 'bomb.pth')
    rewritten(tmp_path / 'bomb.pth', bytes, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    with zipfile.ZipFile(tmp_path / 'bomb.pth', 'a', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr('bomb/data/0', bytes(1 << 28))  # 256 MiB in one
    torch.save(dict(weight=torch.zeros(1)), tmp_path / 'small.pth')
    (tmp_path / 'hidden.pth').write_bytes(archives.bomb((tmp_path / 'small.pth').read_bytes(), 512))
    for name in ('legal', 'greedy', 'bomb', 'hidden'):
        done = subprocess.run(
            [sys.executable, '-c', PEAK, str(tmp_path / f'{name}.pth')],
            env=source_environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout.split()[-1]) < 3 * 64 * 1024, (name, done.stdout)
        assert ('UserError' in done.stdout) == (name != 'legal')
