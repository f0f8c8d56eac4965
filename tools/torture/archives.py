"""ZIP archives that different readers see differently: harmless to Python's, something else to torch's.

No postponed annotations here: ``torch.jit.script`` reads them.
"""

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch


class _Script(torch.nn.Module):
    """TorchScript that writes a file while it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.x = torch.zeros(1)

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return (self.path, self.x, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]):
        self.path = state[0]
        self.x = state[1]
        self.training = state[2]
        torch.save(self.x, self.path)


def script(canary: Path) -> bytes:
    """A TorchScript archive that creates ``canary`` when it is loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch deprecates TorchScript, and reads it nevertheless
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(_Script(str(canary))), buffer)
    canary.unlink(missing_ok=True)
    return buffer.getvalue()


def records(archive: bytes) -> dict[str, bytes]:
    """Name -> content."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def written(content: dict[str, bytes], comment: bytes = b'', **options) -> bytes:
    """An archive of records in Python's form; ``comment`` is that of each, ``options`` are ZipFile's."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', **options) as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.comment, info.compress_type = comment, archive.compression
            archive.writestr(info, data)
    return buffer.getvalue()


def split(archive: bytes) -> tuple[bytes, bytearray, int]:
    """The records, the directory, and the number of its entries."""
    count, length, start = struct.unpack('<H2I', archive[-12:-2])
    return archive[:start], bytearray(archive[start : start + length]), count


def entries(directory: bytes) -> list[int]:
    """Where the entries of a directory begin."""
    found, at = [], 0
    while at < len(directory):
        found.append(at)
        at += 46 + sum(struct.unpack_from('<3H', directory, at + 28))
    return found


def _end(count: int, length: int, start: int) -> bytes:
    return struct.pack('<4s4H2IH', b'PK\x05\x06', 0, 0, count, count, length, start, 0)


def _end64(count: int, length: int, start: int) -> bytes:
    return struct.pack('<4sQ2H2I4Q', b'PK\x06\x06', 44, 45, 45, 0, 0, count, count, length, start)


def _harmless(count: int, shift: int) -> tuple[bytes, bytearray]:
    """Records and a directory (longer than that of other archives) whose offsets are larger by ``shift``."""
    names = ['a/data.pkl', 'a/version', *(f'a/data/{number}' for number in range(count - 2))]
    content, directory, _ = split(written(dict.fromkeys(names, b'hello'), b'x' * 200))
    for at in entries(directory):
        offset = struct.unpack_from('<I', directory, at + 42)[0]
        struct.pack_into('<I', directory, at + 42, offset + shift)
    return content, directory


def two_directories(hidden: bytes) -> bytes:
    """Python looks for the directory before its end, miniz where the end says."""
    content, directory, count = split(hidden)
    shown, other = _harmless(count, len(content) - len(directory))
    start = len(content) + len(shown)
    return content + shown + directory + other + _end(count, len(other), start)


def two_ends(hidden: bytes) -> bytes:
    """Python takes the ZIP64 end that is before its locator, miniz that to which the locator points."""
    content, directory, count = split(hidden)
    shown, other = _harmless(count, len(content))
    start = len(content) + len(shown)
    at = start + len(directory)
    where = at + 56, len(other)
    ends = _end64(count, len(directory), start), _end64(count, where[1], where[0])
    locator = struct.pack('<4sIQI', b'PK\x06\x07', 0, at, 1)
    return content + shown + directory + ends[0] + other + ends[1] + locator + _end(count, where[1], where[0])


def end_in_the_tail(hidden: bytes) -> bytes:
    """Python finds a second end, too short, and no archive; miniz the first one."""
    return hidden + b'PK\x05\x06'


def long_names(hidden: bytes) -> bytes:
    """torch cuts names after 511 bytes when it looks for TorchScript, and finds records in any case of letters."""
    folder = 'R' * (511 - len('/constants.pkl'))
    inner = {name.partition('/')[2]: content for name, content in records(hidden).items()}
    inner['CONSTANTS.PKL'] = inner.pop('constants.pkl')
    inner['constants.pkl and more'] = b''
    return written({f'{folder}/{name}': content for name, content in inner.items()})


SCRIPTS: dict[str, Callable[[bytes], bytes]] = {
    'TorchScript in a second directory': two_directories,
    'TorchScript behind a second ZIP64 end': two_ends,
    'TorchScript before a second end': end_in_the_tail,
    'TorchScript by a name of 512 bytes': long_names,
}
"""Name -> a function that hides TorchScript from Python."""


@cache
def bomb(good: bytes, megabytes: int) -> bytes:
    """A checkpoint whose first tensor is compressed in what torch reads, and not in what Python reads."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in records(good).items():
            with archive.open(name, 'w', force_zip64=True) as file:
                for _ in range(megabytes if name.endswith('/data/0') else 0):
                    file.write(bytes(1 << 20))
                file.write(content)
    return two_directories(buffer.getvalue())


def with_folder(good: bytes) -> bytes:
    """The first tensor is marked as a folder: miniz leaves the memory as it was."""
    content, directory, count = split(good)
    at = next(at for at in entries(directory) if directory[at + 46 :].split(b'PK', 1)[0].endswith(b'/data/0'))
    directory[at + 38] |= 0x10
    return content + bytes(directory) + _end(count, len(directory), len(content))


def two_cases(good: bytes) -> bytes:
    """``data/0`` and a short ``DATA/0``: torch finds either, and believes the pickle's size."""
    content = records(good)
    name = next(name for name in content if name.endswith('/data/0'))
    folder = name.partition('/')[0]
    return written({f'{folder}/DATA/0': b'1234', **content})


FORGED: dict[str, Callable[[bytes], bytes]] = {
    'a compressed tensor in a second directory': lambda good: bomb(good, 4000),
    'a tensor that is a folder': with_folder,
    'a tensor in two cases of letters': two_cases,
}
"""Name -> a function that makes a checkpoint read foreign memory, or take much."""
