"""The archive around a checkpoint: forms that torch writes load, what two readers could see in two ways is refused."""

from __future__ import annotations

import io
import random
import struct
import zipfile

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmcondetr.checkpoints.files import load_file
from mmcondetr.compat import torch_archive
from mmcondetr.compat.plain_values import Refused
from mmcondetr.compat.torch_archive import records_of
from mmcondetr.errors import UserError
from tools.torture import archives


@pytest.fixture(scope='module')
def good() -> bytes:
    """As torch writes it."""
    buffer = io.BytesIO()
    torch.save(dict(state_dict=dict(weight=torch.arange(1000.0), bias=torch.zeros(2), none=torch.zeros(0))), buffer)
    return buffer.getvalue()


@pytest.fixture(scope='module')
def plain(good) -> bytes:
    """The same records in Python's form: no descriptions behind the contents, no padding, no ZIP64."""
    return archives.written(archives.records(good))


@pytest.fixture
def load(tmp_path):
    def loaded(content: bytes) -> dict:
        (tmp_path / 'a.pth').write_bytes(content)
        return load_file(tmp_path / 'a.pth')['state_dict']

    return loaded


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('name', archives.SCRIPTS)
def test_hidden_torchscript_does_not_run(tmp_path, load, name):
    canary = tmp_path / 'it ran'
    content = archives.SCRIPTS[name](archives.script(canary))
    with pytest.raises(UserError, match=r"a\.pth'"):
        load(content)
    with pytest.raises(UserError, match=r"a\.pth'"):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), 'cpu', logger='silent')
    assert not canary.exists()


@pytest.mark.parametrize(
    ('forge', 'said'),
    [(archives.with_folder, 'a folder in the place of a record'), (archives.two_cases, "a record b'archive/DATA/0'")],
)
def test_memory_that_the_file_does_not_hold_is_not_read(good, load, forge, said):
    with pytest.raises(UserError, match=said):
        load(forge(good))


def test_what_torch_and_python_write_loads(good, plain, load):
    for content in (good, plain):
        assert load(content)['weight'].tolist() == list(range(1000)) and load(content)['none'].shape == (0,)


def large(plain: bytes, fields: int = 3) -> bytes:
    """All sizes and places in ZIP64 fields and ends, as in files of more than 4 GiB."""
    content, directory, count = archives.split(plain)
    longer = bytearray()
    places = archives.entries(directory)
    for at, end in zip(places, [*places[1:], len(directory)]):
        entry = bytearray(directory[at:end])
        packed, size = struct.unpack_from('<2I', entry, 20)
        values = size, packed, struct.unpack_from('<I', entry, 42)[0]
        struct.pack_into('<2I', entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
        struct.pack_into('<I', entry, 42, 0xFFFFFFFF)
        struct.pack_into('<H', entry, 30, 4 + 8 * fields)
        longer += entry + struct.pack(f'<2H{fields}Q', 1, 8 * fields, *(*values, 7)[:fields])
    end = len(content) + len(longer)
    return b''.join(
        (
            content,
            longer,
            archives._end64(count, len(longer), len(content)),
            struct.pack('<4sIQI', b'PK\x06\x07', 0, end, 1),
            archives._end(count, len(longer), len(content)),
        )
    )


def test_zip64(plain, load):
    assert load(large(plain))['weight'].tolist() == list(range(1000))
    for fields in (2, 4):
        with pytest.raises(UserError, match='an entry with other fields'):
            load(large(plain, fields))


def entry(at: int, layout: str, value: int, which: int = 0):
    """Change a field of an entry of the directory."""

    def change(archive: bytes) -> bytes:
        content, directory, count = archives.split(archive)
        struct.pack_into(layout, directory, archives.entries(directory)[which] + at, value)
        return content + bytes(directory) + archive[len(content) + len(directory) :]

    return change


def at(position: int, content: bytes):
    """Overwrite bytes; negative positions are from the end."""

    def change(archive: bytes) -> bytes:
        start = position % len(archive)
        return archive[:start] + content + archive[start + len(content) :]

    return change


def inserted(position: int, content: bytes, moved: int):
    """Insert bytes before the directory, and say where it is by ``moved`` more."""

    def change(archive: bytes) -> bytes:
        records, directory, count = archives.split(archive)
        start = position % (len(records) + 1)
        changed = records[:start] + content + records[start:]
        return changed + bytes(directory) + archives._end(count, len(directory), len(records) + moved)

    return change


def renamed(old: bytes, new: bytes):
    """The name of a record in its header and in the directory."""
    return lambda archive: archive.replace(old, new)


CHANGES = {
    'bytes before it': lambda archive: b'PK\x03\x04' + bytes(60) + archive,
    'bytes behind it': lambda archive: archive + b'x',
    'a comment': lambda archive: archive[:-2] + b'\x04\x00abcd',
    'a comment with an end': lambda archive: archive[:-2] + b'\x16\x00' + archive[-22:],
    'a comment of other length': lambda archive: archive[:-2] + b'\x01\x00',
    'another disk': at(-18, b'\x01\x00'),
    'fewer entries on this disk': at(-14, b'\x01\x00'),
    'fewer entries': lambda archive: at(-14, b'\x01\x00\x01\x00')(archive),
    'more entries': lambda archive: at(-14, struct.pack('<2H', 99, 99))(archive),
    'a directory elsewhere': at(-6, b'\x00\x00\x00\x00'),
    'a shorter directory': at(-10, b'\x40\x00\x00\x00'),
    'a gap before the directory': inserted(-1, b'gap', 3),
    'a gap that nobody mentions': inserted(-1, b'gap', 0),
    'the name in the header': at(30, b'Archive'),
    'the method in the header': at(8, b'\x08\x00'),
    'the flags in the header': at(6, b'\x08\x00'),
    'the size in the header': at(22, b'\x01\x00\x00\x00'),
    'the checksum in the header': at(14, b'\x01\x02\x03\x04'),
    'a longer header': at(28, b'\x01\x00'),
    'compression': entry(10, '<H', 8),
    'encryption': entry(8, '<H', 1),
    'a masked header': entry(8, '<H', 0x2000),
    'the size': entry(24, '<I', 1),
    'the packed size': entry(20, '<I', 1),
    'both sizes': lambda archive: entry(24, '<I', 1)(entry(20, '<I', 1)(archive)),
    'the checksum': entry(16, '<I', 1),
    'the place': entry(42, '<I', 1, 1),
    'one place for two': entry(42, '<I', 0, 1),
    'the disk of a record': entry(34, '<H', 1),
    'a size in ZIP64 without a field': entry(24, '<I', 0xFFFFFFFF),
    'no signature': entry(0, '<I', 0),
    'a comment of a record': entry(32, '<H', 1),
    'upper case': renamed(b'archive/version', b'archive/Version'),
    'NUL': renamed(b'archive/version', b'archive/versio\0'),
    'a backslash': renamed(b'archive/version', b'archive\\version'),
    'another folder': renamed(b'archive/version', b'brchive/version'),
    'above': renamed(b'archive/version', b'../../a/version'),
    'no folder': renamed(b'archive/version', b'/rchive/version'),
    'one name twice': renamed(b'archive/data/1', b'archive/data/0'),
    'a record of no checkpoint': renamed(b'archive/version', b'archive/versiom'),
    'code': renamed(b'archive/version', b'archive/code/.p'),
}


@pytest.mark.parametrize('name', CHANGES)
def test_what_could_be_read_in_two_ways(plain, load, name):
    changed = CHANGES[name](plain)
    assert changed != plain
    with pytest.raises(UserError, match=r"a\.pth'"):
        load(changed)


@pytest.mark.parametrize('value', [b'PK\x07\x09', b'PK\x07\x08\0\0\0\0'])
def test_a_description_that_differs(good, load, value):
    place = good.index(b'PK\x07\x08')
    with pytest.raises(UserError, match='sizes that differ'):
        load(at(place, value)(good))


@pytest.mark.parametrize(('back', 'said'), [(22 + 20 - 8, 'an end in another place'), (22 + 20 + 16, 'two ends')])
def test_a_zip64_end_that_differs(plain, load, back, said):
    content = large(plain)
    changed = bytearray(content)
    changed[-back] ^= 1
    with pytest.raises(UserError, match=said):
        load(bytes(changed))


def test_endless_numbers_and_many_records(plain, load, monkeypatch):
    content = archives.records(plain)
    with pytest.raises(UserError, match=r"a record '\.storage_alignment' of 100000 bytes"):
        load(archives.written({**content, 'archive/.storage_alignment': b'9' * 100_000}))
    monkeypatch.setattr(torch_archive, '_MOST_RECORDS', len(content) - 1)
    with pytest.raises(UserError, match=f'it holds {len(content)} records'):
        load(plain)
    monkeypatch.undo()
    monkeypatch.setattr(torch_archive, '_LONGEST_ENTRY', 60)
    with pytest.raises(UserError, match='a directory of .* bytes for'):
        load(plain)


@pytest.mark.parametrize('seed', range(4))
def test_what_is_accepted_is_what_torch_reads(good, plain, seed):
    """Random damage, mostly of the directory and the ends: refused, or of no consequence for either reader."""
    choice = random.Random(seed)
    expected = {name.partition('/')[2]: content for name, content in archives.records(good).items()}
    outcomes = []
    for _ in range(1000):
        changed = bytearray(choice.choice((good, plain)))
        for _ in range(choice.choice((1, 1, 2, 3))):
            place = len(changed) - 1 - choice.randrange(900)
            kind = choice.random()
            if kind < 0.6:
                changed[place] ^= 1 << choice.randrange(8)
            elif kind < 0.8:
                del changed[place : place + choice.choice((1, 4, 20, 22, 56))]
            else:
                start = choice.randrange(len(changed))
                changed[place:place] = changed[start : start + choice.choice((1, 4, 22, 46, 76))]
        try:
            found = records_of(io.BytesIO(changed))
        except Exception as error:
            assert isinstance(error, (zipfile.BadZipFile, Refused)), error
            outcomes.append(False)
            continue
        reader = torch._C.PyTorchFileReader(io.BytesIO(changed))
        read = {name: reader.get_record(name) for name in reader.get_all_records()}
        assert read == expected and list(read) == list(found)
        outcomes.append(True)
    assert 10 < sum(outcomes) < 500, 'times, attributes and versions may be anything'


def test_another_alignment(load):
    config = pytest.importorskip('torch.utils.serialization.config')
    if not hasattr(config.save, 'storage_alignment'):
        pytest.skip('this torch has no such setting')
    buffer = io.BytesIO()
    with config.patch('save.storage_alignment', 4096):
        torch.save(dict(state_dict=dict(weight=torch.arange(5.0))), buffer)
    assert 'archive/.storage_alignment' in archives.records(buffer.getvalue())
    assert load(buffer.getvalue())['weight'].tolist() == [0, 1, 2, 3, 4]


def test_the_view_of_torch_is_compared(plain, monkeypatch):
    """Should torch see something else in spite of it all."""

    class Reader:
        def __init__(self, file):
            pass

        def get_all_records(self):
            return ['data.pkl', 'constants.pkl']

    records_of(io.BytesIO(plain))
    monkeypatch.setattr(torch._C, 'PyTorchFileReader', Reader)
    with pytest.raises(Exception, match='torch reads in another way'):
        records_of(io.BytesIO(plain))


def test_zipfile_is_not_asked(plain, monkeypatch, load):
    """One parser decides, the one that is as strict as this."""

    def ask(*_, **__):
        raise AssertionError

    monkeypatch.setattr(zipfile, 'ZipFile', ask)
    monkeypatch.setattr(zipfile, 'is_zipfile', ask)
    assert len(load(plain)) == 3
