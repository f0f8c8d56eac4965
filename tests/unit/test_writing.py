"""Files and folders that are written completely or not at all."""

import os

import pytest

from mmcondetr.writing import remove_leftovers, replacing, replacing_folder


@pytest.fixture
def good(tmp_path):
    path = tmp_path / 'good.pth'
    path.write_bytes(b'good')
    return path


def test_replacing_keeps_the_old_file_when_writing_fails(good, monkeypatch):
    before = good.read_bytes()
    with pytest.raises(RuntimeError, match='disk full'):
        with replacing(good) as temporary:
            temporary.write_bytes(b'half')
            raise RuntimeError('disk full')
    assert good.read_bytes() == before and [path.name for path in good.parent.iterdir()] == ['good.pth']


def test_replacing_syncs_before_it_renames(good, monkeypatch):
    calls = []
    monkeypatch.setattr(os, 'fsync', lambda descriptor, real=os.fsync: (calls.append('fsync'), real(descriptor)))
    monkeypatch.setattr(os, 'replace', lambda *paths, real=os.replace: (calls.append('replace'), real(*paths)))
    with replacing(good) as temporary:
        assert temporary.parent == good.parent, 'a rename is atomic inside one file system only'
        temporary.write_bytes(b'new')
    assert good.read_bytes() == b'new' and calls[:2] == ['fsync', 'replace']


def test_leftovers_of_a_killed_process_are_removed(good):
    (good.parent / '.epoch_3.pth.4711.tmp').write_bytes(b'half')
    (good.parent / '.mine.tmp').write_bytes(b'of somebody else')
    assert remove_leftovers(good.parent) == ['.epoch_3.pth.4711.tmp']
    assert sorted(path.name for path in good.parent.iterdir()) == ['.mine.tmp', 'good.pth']


@pytest.mark.parametrize('before', ['folder', 'file', 'nothing'])
def test_a_folder_takes_the_place_of_what_was_there(tmp_path, before):
    target = tmp_path / 'target'
    if before == 'folder':
        target.mkdir()
        (target / 'old').touch()
    elif before == 'file':
        target.touch()
    with replacing_folder(target) as folder:
        (folder / 'new').touch()
        assert target.exists() == (before != 'nothing'), 'until the end the old one is there'
    assert [path.name for path in target.iterdir()] == ['new']
    assert [path.name for path in tmp_path.iterdir()] == ['target']


def test_a_folder_stays_when_writing_fails(tmp_path):
    (tmp_path / 'target').mkdir()
    (tmp_path / 'target' / 'old').touch()
    with pytest.raises(RuntimeError, match='disk full'):
        with replacing_folder(tmp_path / 'target') as folder:
            (folder / 'half').touch()
            raise RuntimeError('disk full')
    assert [path.name for path in (tmp_path / 'target').iterdir()] == ['old']
    assert [path.name for path in tmp_path.iterdir()] == ['target']


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target, rename = tmp_path / 'target', os.rename
    target.mkdir()
    (target / 'old').touch()

    def fail_on_new(source, destination):
        if os.path.basename(source) == 'new':
            raise OSError('no space')
        rename(source, destination)

    monkeypatch.setattr(os, 'rename', fail_on_new)
    with pytest.raises(OSError, match='no space'):
        with replacing_folder(target):
            pass
    assert [path.name for path in target.iterdir()] == ['old']
