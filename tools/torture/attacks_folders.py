"""Folders from strangers: Hugging Face's files, archives that contain paths, work directories full of links."""

from __future__ import annotations

import copy
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from tools.torture.attacks_data import mutate
from tools.torture.attempts import Attempt, Silent
from tools.torture.ground import Ground, command, read_checkpoint


def _huggingface(ground: Ground, folder: Path) -> dict:
    """Write the detector as a Hugging Face folder; returns its ``config.json``."""
    from mmcondetr.checkpoints.renaming import from_ours
    from mmcondetr.checkpoints.rules import FAMILIES

    tensors = read_checkpoint(ground.checkpoint)['state_dict']
    torch.save(from_ours(tensors, FAMILIES['huggingface'], 'torture'), folder / 'pytorch_model.bin')
    names = {str(number): f'class {number}' for number in range(6)}
    return dict(model_type='conditional_detr', id2label=names, dilation=False, d_model=32, num_queries=8)


def _safetensors() -> dict[str, bytes]:
    """Headers with false information."""

    def file(header: Any, content: bytes = bytes(16)) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack('<Q', len(text)) + text + content

    def one(**changes: Any) -> bytes:
        return file({'a.weight': dict(dict(dtype='F32', shape=[4], data_offsets=[0, 16]), **changes)})

    twice = (
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    )
    return {
        'a header of 2**63 bytes': struct.pack('<Q', 2**63) + b'{}',
        'a header of 2**40 bytes': struct.pack('<Q', 2**40) + b'{}',
        'a header of 90 MB of blanks': file(b'{' + b' ' * (90 << 20) + b'}'),
        'a header of 30 MB of dicts': file(b'{"__metadata__":[' + b'{},' * 10_000_000 + b'{}]}'),
        'a deep header': file(b'{"a":' * 100_000),
        'offsets beyond the file': one(shape=[2**40], data_offsets=[0, 2**42]),
        'offsets backwards': one(data_offsets=[16, 0]),
        'a shape of 2**64': one(shape=[2**32, 2**32, 0]),
        'a negative shape': one(shape=[-1, -4]),
        'a shape of texts': one(shape=['4']),
        'no such type': one(dtype='F33'),
        'one name twice': file(twice),
        'no tensors': file({}),
        'deep metadata': file({'__metadata__': dict(mmcondetr='[' * 100_000), 'a.weight': {}}),
        'metadata that is no text': file({'__metadata__': dict(mmcondetr=[1])}),
    }


def _rewritten(ground: Ground, change: Callable[[str], str | list[str]]) -> Callable[[Path], None]:
    """A .pth whose records have other names, one or several each."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(ground.checkpoint) as source, zipfile.ZipFile(path, 'w') as target:
            for item in source.infolist():
                names = change(item.filename)
                for name in [names] if isinstance(names, str) else names:
                    target.writestr(name, source.read(item))

    return write


def _archives(ground: Ground) -> dict[str, Callable[[Path], None]]:
    """Archives with names that lead elsewhere, or twice."""
    top = '../beside'
    return {
        'records above the folder': _rewritten(ground, lambda name: f'{top}/{name.partition("/")[2]}'),
        'one record above the folder': _rewritten(ground, lambda name: [name, f'{top}/precious.txt'][:2]),
        'absolute records': _rewritten(ground, lambda name: f'{ground.victim}/{name.partition("/")[2]}'),
        'every record twice': _rewritten(ground, lambda name: [name, name]),
        'the pickle twice': _rewritten(ground, lambda name: [name] * (1 + name.endswith('data.pkl'))),
        'two folders': _rewritten(ground, lambda name: [name, f'other/{name.partition("/")[2]}']),
        'names with backslashes': _rewritten(ground, lambda name: name.replace('/', '\\')),
    }


def _links(ground: Ground, work: Path) -> dict[str, Callable[[], None]]:
    """Work directories in which names are links, or files name paths outside."""
    precious = ground.victim / 'precious.txt'

    def linked(name: str, target: str | os.PathLike) -> Callable[[], None]:
        return lambda: (work / name).symlink_to(target)

    def written(name: str, text: str) -> Callable[[], None]:
        return lambda: (work / name).write_text(text) and None

    names = ['../beside/precious.txt', str(precious), 'epoch_1.pth', '..']
    return {
        'epoch_2.pth is a link': linked('epoch_2.pth', precious),
        'the best is a link': linked('best_coco_bbox_mAP_epoch_1.pth', precious),
        'stopped.pth is a link to a folder': linked('stopped.pth', ground.victim),
        'last_checkpoint is a link': linked('last_checkpoint', precious),
        'last_checkpoint is endless': linked('last_checkpoint', '/dev/zero'),
        'last_checkpoint leads above': written('last_checkpoint', '../beside/precious.txt'),
        **{
            f'last_checkpoint names {url}': written('last_checkpoint', url)
            for url in ('torchvision://resnet18', 's3://bucket/x.pth', 'HTTP://127.0.0.1:1/x.pth', 'modelscope://x')
        },
        'the lock is a link': linked('.training.lock', precious),
        'the list of files is a link': linked('.checkpoints.json', precious),
        'the list of files names others': written('.checkpoints.json', json.dumps(dict(run=None, names=names))),
        'the list of files is no list': written('.checkpoints.json', '[' * 100_000),
        'the config is a link': linked(ground.config.name, precious),
        'the config is a pipe': lambda: os.mkfifo(work / ground.config.name),
        'the log folders are links': lambda: (
            [
                (work / f'{datetime.now() + timedelta(seconds=s):%Y%m%d_%H%M%S}').symlink_to(ground.victim)
                for s in range(120)
            ]
            and None
        ),
        'the log folders contain links': lambda: [_log_folder(work, precious, s) for s in range(120)] and None,
        'the list of files is a pipe': lambda: os.mkfifo(work / '.checkpoints.json'),
        'the list of files is endless': linked('.checkpoints.json', '/dev/zero'),
        'the lock is a pipe': lambda: os.mkfifo(work / '.training.lock'),
        'last_checkpoint is a folder': lambda: (work / 'last_checkpoint').mkdir(),
        'epoch_2.pth is a folder': lambda: (work / 'epoch_2.pth').mkdir(),
        'a leftover is a folder': lambda: (work / '.epoch_1.pth.1.tmp').mkdir(),
        'a leftover is a link': linked('.epoch_1.pth.1.tmp', precious),
    }


def _log_folder(work: Path, precious: Path, seconds: int) -> None:
    """Create the log folder of a run that begins in some seconds; its files are links."""
    name = f'{datetime.now() + timedelta(seconds=seconds):%Y%m%d_%H%M%S}'
    (work / name / 'vis_data').mkdir(parents=True)
    for place in (f'{name}.log', 'vis_data/config.py', 'vis_data/scalars.json', f'vis_data/{name}.json'):
        (work / name / place).symlink_to(precious)


def folders(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Folders from strangers: read, or refused with a message; targets of links and paths stay unchanged."""
    folder = ground.new('folders')
    config = _huggingface(ground, folder)
    from mmcondetr.checkpoints.reading import load_from_file

    def attempt(
        name: str, prepare: Callable[[], Any], run: Callable[[], int | None], must_fail: bool = False
    ) -> Attempt:
        def go() -> int | None:
            prepare()
            return run()

        return Attempt(name, go, must_fail, seconds=60, megabytes=2000, check=ground.check_victim)

    def read(path: Path) -> None:
        if not load_from_file(str(path)).get('state_dict'):
            raise Silent('nothing was read, without an error')

    def configured(content: bytes) -> Callable[[], Any]:
        return lambda: (folder / 'config.json').write_bytes(content)

    yield attempt('the good folder', configured(json.dumps(config).encode()), lambda: read(folder))
    yield attempt('config.json of 100,000 brackets', configured(b'[' * 100_000), lambda: read(folder))
    yield attempt(
        'config.json is a link to a device',
        lambda: ((folder / 'config.json').unlink(missing_ok=True), (folder / 'config.json').symlink_to('/dev/zero')),
        lambda: read(folder),
    )
    (folder / 'config.json').unlink(missing_ok=True)
    file = ground.new('folders-files') / 'x.safetensors'
    for name, content in _safetensors().items():
        yield attempt(f'safetensors: {name}', lambda c=content: file.write_bytes(c), lambda: read(file), must_fail=True)
    archive = file.with_name('x.pth')
    for name, write in _archives(ground).items():
        yield attempt(f'ZIP: {name}', lambda w=write: w(archive), lambda: read(archive))
    work = ground.folder / 'folders-work'
    for name in _links(ground, work):

        def prepare(name: str = name) -> None:
            ground.new('folders-work')
            (work / 'epoch_1.pth').write_bytes(ground.checkpoint.read_bytes())
            _links(ground, work)[name]()

        yield attempt(f'work_dir: {name}', prepare, lambda: command('train', ground.config, '--work-dir', work))
        yield attempt(
            f'work_dir, resumed: {name}',
            prepare,
            lambda: command('train', ground.config, '--work-dir', work, '--resume'),
        )
    while True:
        changed, name = mutate(copy.deepcopy(config), choice)
        yield attempt(f'config.json: {name}', configured(json.dumps(changed).encode()), lambda: read(folder))
