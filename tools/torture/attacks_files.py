"""Checkpoints: corrupted, hostile, with non-finite numbers, and resumed from in any state."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import pickletools
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tools.torture import archives
from tools.torture.attacks_data import WRONG, places
from tools.torture.attempts import Attempt, DataLost, Silent
from tools.torture.ground import Ground, command, read_checkpoint


def _build(ground: Ground) -> torch.nn.Module:
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(Config.fromfile(ground.config).model)


def _load_equal(ground: Ground, path: Path, expected: dict) -> None:
    """Load a file into the model; raises :class:`Silent` if a weight differs from the saved one."""
    from mmengine.runner import load_checkpoint

    model = _build(ground)
    load_checkpoint(model, str(path), map_location='cpu')
    state = model.state_dict()
    wrong = [
        name for name, value in expected.items() if 'num_batches' not in name and not torch.equal(state[name], value)
    ]
    if wrong:
        raise Silent(f'{len(wrong)} tensors are not what was saved ({wrong[0]})')


def _changed(content: bytes, choice: random.Random) -> tuple[bytes, str]:
    kind = choice.random()
    if kind < 0.5:
        position, bit = choice.randrange(len(content)), 1 << choice.randrange(8)
        changed = bytearray(content)
        changed[position] ^= bit
        return bytes(changed), f'byte {position} ^ {bit}'
    if kind < 0.75:
        end = choice.randrange(len(content))
        return content[:end], f'cut at byte {end}'
    position, length = choice.randrange(len(content)), choice.choice((4, 64, 4096))
    return content[:position] + bytes(length) + content[position + length :], f'{length} zeros at byte {position}'


def corruptions(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Files with flipped bits, cut and zeroed: refused, or loaded with equal weights.

    PyTorch's ZIP archives have checksums, and the files of convert-checkpoint a hash. PyTorch's format before 1.6 and
    safetensors files from other programs have neither, so a flipped bit of a weight cannot be noticed and is not tried.
    """
    from mmcondetr.checkpoints.conversion import convert

    folder = ground.new('corruptions')
    expected = read_checkpoint(ground.checkpoint)['state_dict']
    torch.save(dict(state_dict=expected), folder / 'small.pth')
    convert(folder / 'small.pth', folder / 'converted.pth', 'mmcondetr')
    convert(folder / 'small.pth', folder / 'ours.safetensors', 'mmcondetr')
    sources = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    tried = folder / 'tried'
    tried.mkdir()

    def attempt(name: str, file: str, content: bytes, must_fail: bool = False) -> Attempt:
        def run() -> None:
            (tried / file).write_bytes(content)
            _load_equal(ground, tried / file, expected)

        return Attempt(name, run, must_fail, seconds=60, megabytes=2000)

    for file, content in sources.items():
        yield attempt(f'{file}: good', file, content)
    other = {f'x.{name}': value for name, value in expected.items()}
    for name, value in {
        'empty state dict': dict(state_dict={}),
        'other names': dict(state_dict=other),
        'a list': [1, 2],
        'no dict inside': dict(state_dict=[1]),
        'texts as weights': dict(state_dict=dict.fromkeys(expected, 'x')),
        'a number as a name': dict(state_dict={1: torch.zeros(1)}),
        'integers as weights': dict(
            state_dict={key: torch.zeros(tensor.shape, dtype=torch.int32) for key, tensor in expected.items()}
        ),
        'half of the names': dict(state_dict=dict(list(expected.items())[::2])),
        'sparse': dict(state_dict={**expected, 'query_embedding.weight': torch.eye(8).to_sparse()}),
        'complex': dict(state_dict={key: tensor.to(torch.complex64) for key, tensor in expected.items()}),
    }.items():
        buffer = io.BytesIO()
        torch.save(value, buffer)
        yield attempt(name, 'made.pth', buffer.getvalue(), must_fail=True)
    while True:
        file = choice.choice(list(sources))
        content, name = _changed(sources[file], choice)
        yield attempt(f'{file}: {name}', file, content)


class _Call:
    """Pickled as a call of ``function(*arguments)``."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def _with_pickle(path: Path, data: bytes, template: Path) -> None:
    """A .pth like ``template`` with another pickle inside."""
    with zipfile.ZipFile(template) as source, zipfile.ZipFile(path, 'w') as target:
        for item in source.infolist():
            target.writestr(item, data if item.filename.endswith('/data.pkl') else source.read(item))


def _opcodes(module: str, name: str, argument: str) -> bytes:
    """A pickle, protocol 2, that calls ``module.name(argument)``."""
    text = argument.encode()
    call = f'c{module}\n{name}\n'.encode() + b'X' + struct.pack('<I', len(text)) + text + b'\x85R'
    return b'\x80\x02}X\x0a\x00\x00\x00state_dict' + call + b's.'


def _payloads(ground: Ground) -> dict[str, Callable[[Path], None]]:
    """Name -> a function that writes a hostile file to a path. All try to create the canary."""
    touch = f'touch {ground.canary}'
    code = f"open({str(ground.canary)!r}, 'w').close()"
    good = read_checkpoint(ground.checkpoint)

    def saved(**changes: Any) -> Callable[[Path], None]:
        return lambda path: torch.save({**good, **changes}, path)

    def raw(data: bytes) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(data)

    def inside(data: bytes) -> Callable[[Path], None]:
        return lambda path: _with_pickle(path, data, ground.checkpoint)

    config = ground.config.read_text()
    found: dict[str, Callable[[Path], None]] = {
        'os.system in place of the weights': saved(state_dict=_Call(os.system, touch)),
        'os.system in meta': saved(meta=_Call(os.system, touch)),
        'eval in the optimizer': saved(optimizer=_Call(eval, code)),
        'exec in message_hub': saved(message_hub=_Call(exec, code)),
        'os.system as a plain pickle': raw(pickle.dumps(_Call(os.system, touch))),
        'meta.config with code': saved(meta={**good['meta'], 'config': f'{code}\n{config}'}),
        'meta.cfg with code': saved(meta={**good['meta'], 'cfg': f'{code}\n{config}'}),
        'message_hub.runtime_info.cfg with code': lambda path: torch.save(_with_cfg(good, f'{code}\n{config}'), path),
        'custom_imports in meta.config': saved(
            meta={**good['meta'], 'config': "custom_imports = dict(imports=['antigravity'])\n" + config}
        ),
    }
    for module, name, argument in (
        ('os', 'system', touch),
        ('posix', 'system', touch),
        ('subprocess', 'check_output', touch),
        ('builtins', 'eval', code),
        ('builtins', 'exec', code),
        ('__builtin__', 'eval', code),
        ('torch.serialization', 'load', str(ground.canary)),
        ('torch.jit', 'load', touch),
        ('numpy', 'load', touch),
        ('runpy', 'run_path', touch),
        ('pickle', 'loads', code),
        ('mmengine.config', 'Config.fromfile', touch),
        ('mmengine.fileio', 'load', touch),
        ('torch._dynamo', 'exec', code),
        ('functools', 'partial', code),
        ('builtins', 'getattr', code),
        ('builtins', '__import__', 'antigravity'),
        ('collections', 'namedtuple', code),
    ):
        found[f'{module}.{name}, old format'] = raw(_opcodes(module, name, argument))
        found[f'{module}.{name} in a ZIP'] = inside(_opcodes(module, name, argument))
    hidden = archives.script(ground.canary)
    for name, hide in archives.SCRIPTS.items():
        found[name] = raw(hide(hidden))
    return found


def _with_cfg(good: dict, text: str) -> dict:
    changed = copy.copy(good)
    hub = copy.deepcopy(good['message_hub'])
    info = hub['runtime_info'] if isinstance(hub, dict) and 'runtime_info' in hub else {}
    info['cfg'] = text
    changed['message_hub'] = {**hub, 'runtime_info': info} if isinstance(hub, dict) else hub
    return changed


def _forged(ground: Ground) -> dict[str, Callable[[Path], None]]:
    """Files that try to read foreign memory, or to allocate much more than they contain."""
    import numpy as np

    good = read_checkpoint(ground.checkpoint)

    def numpy_array(state: tuple) -> bytes:
        class Dtype:
            def __reduce__(self) -> tuple:
                return np.dtype, ('f8', False, True), state

        data = pickle.dumps(dict(state_dict={}, message_hub=dict(log_scalars={}, runtime_info=dict(a=0))), 2)
        assert pickletools.optimize(data)
        array = np.zeros(2)

        class Array:
            def __reduce__(self) -> tuple:
                made, arguments, inner = array.__reduce__()
                return made, arguments, (inner[0], inner[1], Dtype(), inner[3], b'A' * 16)

        return pickle.dumps(dict(state_dict={}, message_hub=dict(runtime_info=dict(a=Array()))), 2)

    dimensions = (2**61,) * 200_000, (1,) * 200_000, False, OrderedDict()

    def stride(path: Path) -> None:
        huge = torch.zeros(1).expand(3_000_000_000)
        torch.save({**good, 'state_dict': {**good['state_dict'], 'extra': huge}}, path)

    def inside(stream: bytes) -> Callable[[Path], None]:
        return lambda path: _with_pickle(path, stream, ground.checkpoint)

    def unfilled(path: Path) -> None:
        torch.save(good, path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        at = max(content.rfind(b'\x80\x02]q\x00(X'), content.rfind(b'\x80\x02]q\x00X'))
        assert at > 0, 'the list of contents'
        path.write_bytes(content[:at] + pickle.dumps([], 2) + bytes(len(content)))

    def bomb(path: Path) -> None:
        torch.save(good, path)
        with zipfile.ZipFile(path) as source:
            items = [(item.filename, source.read(item)) for item in source.infolist()]
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as target:
            for name, content in items:
                target.writestr(name, content)
            folder = items[0][0].split('/')[0]
            with target.open(f'{folder}/data/bomb', 'w', force_zip64=True) as file:
                for _ in range(4000):
                    file.write(bytes(1 << 20))

    def shared() -> list:
        value: list = [1]
        for _ in range(60):
            value = [value, value]
        return value

    def nested(depth: int) -> list:
        value: list = []
        for _ in range(depth):
            value = [value]
        return value

    def rewritten(forge: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(forge(ground.checkpoint.read_bytes()))

    cycle: dict = {}
    cycle['self'] = [cycle]
    key = b'K\x01\x85' + b'2\x86' * 60  # a tuple that holds a tuple twice that holds ...
    return {
        'lists that hold one list twice, 60 deep, in meta': lambda path: torch.save(
            {**good, 'meta': {**good['meta'], 'epoch': shared()}}, path
        ),
        'lists that hold one list twice, 60 deep, in message_hub': lambda path: torch.save(
            {**good, 'message_hub': {**good['message_hub'], 'runtime_info': dict(a=shared())}}, path
        ),
        'lists 250 deep': lambda path: torch.save({**good, 'optimizer': nested(250)}, path),
        'a dict that contains itself': lambda path: torch.save({**good, 'meta': cycle}, path),
        'a key that is hashed for ever': lambda path: _with_pickle(
            path, b'\x80\x02}' + key + b'K\x01s.', ground.checkpoint
        ),
        'a call of what is printed for ever': lambda path: _with_pickle(
            path, b'\x80\x02' + key + b')R.', ground.checkpoint
        ),
        'a shape of 200,000 dimensions': lambda path: torch.save(
            {**good, 'x': _Call(torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), 0, *dimensions)}, path
        ),
        'a float64 dtype that counts references': lambda path: path.write_bytes(
            numpy_array((3, '<', None, None, None, -1, -1, 63))
        ),
        'a dtype with an object field': lambda path: path.write_bytes(
            numpy_array((3, '|', None, ('a',), {'a': (np.dtype('O'), 0)}, 8, 8, 63))
        ),
        'an array of objects': lambda path: torch.save(
            {**good, 'message_hub': dict(runtime_info=dict(a=np.array([{}], dtype=object)))}, path
        ),
        'a tensor of 12 GB with stride 0': stride,
        'a ZIP bomb of 4 GB': bomb,
        **{name: inside(b'\x80\x02}X\x04\x00\x00\x00meta' + stream + b's.') for name, stream in _streams().items()},
        'tensors that are not in the list of contents, old format': unfilled,
        'a text of 2**50 bytes, old format': lambda path: path.write_bytes(b'\x80\x04\x8d' + struct.pack('<Q', 2**50)),
        '_metadata that is a number': lambda path: torch.save(_with_metadata(good, 5), path),
        '_metadata that replaces parameters': lambda path: torch.save(
            _with_metadata(
                good, {name.rpartition('.')[0]: dict(assign_to_params_buffers=True) for name in good['state_dict']}
            ),
            path,
        ),
        **{name: rewritten(forge) for name, forge in archives.FORGED.items()},
    }


def _streams() -> dict[str, bytes]:
    """Name -> opcodes of a value that takes time or memory out of proportion to the file."""
    numbers = [number * (2**61 - 1) for number in range(1, 200_001)]
    pairs = b''.join(b'J' + struct.pack('<i', number) + b'N' for number in range(50_000))
    return {
        'a Counter of what is hashed for ever': b'ccollections\nCounter\n)R'
        + b'X\x01\x00\x00\x00kK\x01\x85' + b'2\x86' * 60 + b's',
        '200,000 keys of one hash': b'}(' + b''.join(pickle.dumps(number, 2)[2:-1] + b'N' for number in numbers) + b'u',
        'a text of 4 MB as bytes, 2,000 times': b'](X' + struct.pack('<I', 4 << 20) + b'a' * (4 << 20)
        + b'q\x00X\x06\x00\x00\x00latin1q\x01c_codecs\nencode\nq\x02' + b'h\x02h\x00h\x01\x86R' * 2000 + b'e',
        'a dict of 50,000 keys, copied 2,000 times': b'](}(' + pairs + b'uq\x00ccollections\nOrderedDict\nq\x01'
        + b'h\x01h\x00\x85R' * 2000 + b'e',
    }  # fmt: skip


def _with_metadata(good: dict, metadata: Any) -> dict:
    state = OrderedDict(good['state_dict'])
    state._metadata = metadata
    return {**good, 'state_dict': state}


ROADS = ('load_from', '--resume', 'test', 'convert-checkpoint', 'weights alone', 'load_file')


def _go(ground: Ground, road: str, path: Path, work: Path) -> int | None:
    """Load a file in one of the ways that the package offers."""
    if road == 'load_from':
        return command('train', ground.config, '--work-dir', work, '--cfg-options', f'load_from={path}')
    if road == '--resume':
        return command('train', ground.config, '--work-dir', work, '--resume', path)
    if road == 'test':
        return command('test', ground.config, path, '--work-dir', work)
    if road == 'convert-checkpoint':
        return command('convert-checkpoint', path, work / 'out.pth', '--to', 'mmdet')
    if road == 'weights alone':
        from mmdet.apis import DetInferencer

        DetInferencer(weights=str(path), device='cpu', show_progress=False)
        return 0
    from mmcondetr.checkpoints.files import load_file

    load_file(path)
    return 0


def payloads(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Code and forged memory in checkpoints, loaded in every way; nothing may run, and memory stays bounded."""
    folder = ground.new('payloads')
    writers = {**_payloads(ground), **_forged(ground)}
    forged = set(_forged(ground))
    refused = {*_streams(), *(name for name in forged if name.endswith((', old format', 'a number')))}
    cases = [(name, road) for name in writers for road in ROADS]
    first = [(name, '--resume') for name in writers if 'meta.' in name or 'cfg' in name or name in forged]
    first += [(name, 'load_file') for name in archives.SCRIPTS]
    choice.shuffle(cases)
    for name, road in [*first, *cases]:
        path = folder / 'hostile.pth'

        def run(name: str = name, road: str = road, path: Path = path) -> int | None:
            return _go(ground, road, path, ground.new('payload-work'))

        writers[name](path)
        yield Attempt(
            f'{name}, by {road}',
            run,
            must_fail=name in refused,
            seconds=120,
            megabytes=2500 if name in forged else 6000,
            check=ground.check_victim,
        )


def _resume(ground: Ground, path: Path, work: Path) -> int:
    return command('train', ground.config, '--work-dir', work, '--resume', path)


def resuming(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Damaged, foreign and hostile training states: resumed to the same end, or refused; nothing outside is removed."""
    good = read_checkpoint(ground.checkpoint)
    folder = ground.new('resuming')
    expected = read_checkpoint(ground.folder / 'good' / 'epoch_2.pth')['state_dict']
    state = {key: good[key] for key in good if key not in ('state_dict',)}

    def attempt(name: str, checkpoint: Any, exact: bool = False, must_fail: bool = False) -> Attempt:
        path, work = folder / 'changed.pth', folder / 'work'

        def run() -> int:
            ground.new('resuming/work')
            torch.save(checkpoint, path)
            code = _resume(ground, path, work)
            if code == 0 and exact:
                found = read_checkpoint(work / 'epoch_2.pth')['state_dict']
                if any(not torch.equal(found[name], value) for name, value in expected.items()):
                    raise Silent('the weights at the end are not those of an unbroken run')
            return code

        return Attempt(name, run, must_fail, seconds=120, megabytes=4000, check=ground.check_victim)

    yield attempt('the good checkpoint', good, exact=True)
    yield attempt(
        'released weights: no state of training', dict(state_dict=good['state_dict'], meta={}), must_fail=True
    )
    yield attempt('weights alone', good['state_dict'], must_fail=True)
    for target in (ground.victim, ground.victim / 'precious.txt', Path('..') / 'beside'):
        hub = copy.deepcopy(good['message_hub'])
        for name in ('best_ckpt', 'last_ckpt'):
            hub['runtime_info'][name] = str(target)
        hub['runtime_info']['best_score'] = -1.0
        yield attempt(f'best_ckpt = {target.name}', {**good, 'message_hub': hub})
    keep = copy.deepcopy(good['message_hub'])
    keep['runtime_info']['keep_ckpt_ids'] = ['../../beside/precious.txt', 7, -1]
    yield attempt('keep_ckpt_ids with paths', {**good, 'message_hub': keep})
    for name, part, value in _beyond_the_words(good):
        changed = copy.deepcopy(good)
        changed['random_state']['ranks'][0][part] = value
        yield attempt(name, changed, must_fail=True)
    for kind in ('..', '.', 'notes', 'notes.txt', 'best_x_epoch_7.pth', 'link', 'epoch_1.pth'):
        yield _stranger(ground, good, kind)
    for key in state:
        yield attempt(f'{key} missing', {name: value for name, value in good.items() if name != key})
        for value in (None, [], 'x', {}):
            yield attempt(f'{key} = {value!r}', {**good, key: value})
    plain = {key: _plain(value) for key, value in state.items()}
    deep = [place for place in places(plain) if len(place) <= 4]
    while True:
        place = choice.choice(deep)
        changed = copy.deepcopy(good)
        parent = changed
        try:
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        value = choice.choice(WRONG)
        parent[place[-1]] = value
        yield attempt(f'{".".join(map(str, place))} = {value!r}', changed)


def _beyond_the_words(good: dict) -> Iterator[tuple[str, str, Any]]:
    """Name, generator and state: positions from which NumPy and PyTorch would draw what is not their state."""
    state = good['random_state']['ranks'][0]
    for position in (625, 10**6, -5, 2**31 - 1, 2**40):
        yield f"NumPy's position {position}", 'numpy', {**state['numpy'], 'position': position}
    for left, used in ((624, 624), (600, 2**40)):
        changed = bytearray(state['torch'].numpy().tobytes())
        struct.pack_into('=iiQ', changed, 8, left, 1, used)
        yield f"PyTorch's left {left}, next {used}", 'torch', torch.frombuffer(changed, dtype=torch.uint8)


def _stranger(ground: Ground, good: dict, name: str) -> Attempt:
    """A stranger's whole folder: its list of files is of the checkpoint's run, and has the name that both want removed.

    ``save_best`` is on, so the former best is removed after the first validation.
    """
    above = ground.folder / 'resuming/home'
    work = above / 'run'

    def run() -> int:
        ground.new('resuming/home')
        ground.new('resuming/home/run/notes')
        for path in (above / 'precious.txt', work / 'notes.txt', work / 'notes/precious.txt'):
            path.write_text('precious')
        (work / 'link').symlink_to(above)
        (work / 'best_x_epoch_7.pth').symlink_to(above)
        hub = copy.deepcopy(good['message_hub'])
        known = dict(best_ckpt=f'x/{name}', best_score=-1.0, keep_ckpt_ids=[10**5000, 1, -1, '..'])
        hub['runtime_info'] |= known
        hub['resumed_keys'] |= dict.fromkeys(known, True)
        torch.save({**good, 'message_hub': hub}, work / 'epoch_1.pth')
        listed = [name, '../precious.txt', str(above), None, 'epoch_1.pth']
        (work / '.checkpoints.json').write_text(
            json.dumps(dict(run=hub['runtime_info']['run'], names=listed, validated=3))
        )
        return command('train', ground.config, '--work-dir', work, '--resume')

    def check() -> None:
        ground.check_victim()
        for path in (above / 'precious.txt', work / 'notes.txt', work / 'notes/precious.txt', work / 'epoch_2.pth'):
            if not path.is_file():
                raise DataLost(f'{path.relative_to(above)} was removed')

    return Attempt(f"a stranger's folder whose list and best_ckpt name {name}", run, seconds=120, check=check)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else 0


def nonfinite(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """NaN and infinity in weights: no AP, no conversion and no loading into training without an error."""
    good = read_checkpoint(ground.checkpoint)
    folder = ground.new('nonfinite')
    names = [name for name, value in good['state_dict'].items() if value.is_floating_point()]

    def attempt(
        road: str, name: str | None, value: float, averaged: bool = False, dtype: torch.dtype | None = None
    ) -> Attempt:
        path = folder / 'changed.pth'

        def run() -> int | None:
            changed = {key: tensor.clone() for key, tensor in good['state_dict'].items()}
            for key in names if name is None else [name]:
                changed[key] = changed[key].to(dtype)
                tensor = changed[key].view(-1)
                tensor[slice(None) if name is None else random.Random(key).randrange(tensor.numel())] = value
            average = {f'module.{key}': tensor for key, tensor in changed.items()}
            torch.save({**good, **(dict(ema_state_dict=average) if averaged else dict(state_dict=changed))}, path)
            return _go(ground, road, path, ground.new('nonfinite/work'))

        what = f'{name or "every weight"}{", averaged" if averaged else ""}'
        what += f' as {dtype}' if dtype else ''
        return Attempt(f'{value} in {what}, by {road}', run, must_fail=True, seconds=120)

    yield attempt('test', None, float('nan'))
    yield attempt('--resume', names[-1], float('nan'), averaged=True)
    yield attempt('convert-checkpoint', None, float('nan'))
    for road in ('test', 'convert-checkpoint'):
        yield attempt(road, names[-1], float('nan'), dtype=torch.float8_e5m2)
        yield attempt(road, names[-1], 1e300, dtype=torch.float64)
    while True:
        road = choice.choice(('test', 'test', 'load_from', '--resume', 'convert-checkpoint'))
        yield attempt(road, choice.choice(names), choice.choice((float('nan'), float('inf'), float('-inf'))))
