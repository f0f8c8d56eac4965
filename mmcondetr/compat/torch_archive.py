"""The ZIP archive of a checkpoint, held to the one form that ``torch.save`` writes.

Readers of ZIP files disagree about archives that contradict themselves: they look for the directory, its end or a
record in different places, compare names with or without case, and believe either of two sizes. A file could therefore
be harmless to the reader that checks it and code to the one that loads it: torch reads with miniz, and passes whatever
contains ``constants.pkl`` to ``torch.jit.load``. So nothing is accepted that leaves a choice: a file consists of its
records without gaps, their directory, and its end (sections 4.3 and 4.5.3 of PKWARE's APPNOTE 6.3.10).
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from typing import BinaryIO, NamedTuple
from zipfile import BadZipFile

import torch

from mmcondetr.compat.plain_values import Refused

START = b'PK\x03\x04'
"""First bytes of a ZIP archive, by which torch recognises it."""

_LOCAL = struct.Struct('<4s5H3I2H')
_ENTRY = struct.Struct('<4s6H3I5H2I')
_END = struct.Struct('<4s4H2IH')
_LOCATOR = struct.Struct('<4sIQI')
_END64 = struct.Struct('<4sQ2H2I4Q')
_IN_EXTRA = 0xFFFFFFFF  # the value is in the ZIP64 extra field
_DESCRIBED, _UTF8 = 0x0008, 0x0800  # flags: sizes follow the data; the name is UTF-8
_FOLDER = 0x10  # an attribute; miniz fills the memory of such a record with nothing
_MOST_RECORDS = 100_000
_LONGEST_ENTRY = 700  # bytes
_LONGEST_NOTE = 128  # bytes of the records that are neither the pickle nor a storage; torch makes numbers of them
_NAME = re.compile(
    rb'([^/\\\x00-\x1f]{1,255})/'
    rb'(data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)'
)
_SCRIPT = re.compile(rb'/(constants\.pkl|code/)', re.IGNORECASE)


class Record(NamedTuple):
    """Where a record's content is in the file, in bytes, and its CRC-32."""

    position: int
    size: int
    crc: int


def records_of(file: BinaryIO) -> dict[str, Record]:
    """Name without the folder -> record, in the order of the file; contents are compared with their checksums.

    Raises:
        BadZipFile: the file is truncated or damaged, or its parts contradict each other.
        Refused: it contains something else than torch.save writes, for example TorchScript.
    """
    count, start, end = _directory(file)
    directory = _read(file, start, end - start)
    records: dict[str, Record] = {}
    folders, at, position = set(), 0, 0
    for _ in range(count):
        folder, name, record, at, position = _record(file, directory, at, position)
        folders.add(folder)
        if name in records or len(folders) > 1:
            raise Refused('records of one name, or in several folders')
        if record.size > _LONGEST_NOTE and not name.startswith('data'):
            raise Refused(f"a record '{name}' of {record.size} bytes")
        records[name] = record
    if at != len(directory) or position != start:
        raise BadZipFile('something between its records and their directory')
    _check_sums(file, records)
    _check_view_of_torch(file, records)
    return records


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    if position < 0:
        raise BadZipFile('a part before its beginning')
    file.seek(position)
    content = file.read(size)
    if len(content) < size:
        raise BadZipFile('a part beyond its end')
    return content


def _directory(file: BinaryIO) -> tuple[int, int, int]:
    """Number of entries, first byte, and byte behind the last."""
    size = file.seek(0, os.SEEK_END)
    end = size - _END.size
    signature, *disks, here, count, length, start, comment = _END.unpack(_read(file, end, _END.size))
    if signature != b'PK\x05\x06' or comment:
        raise BadZipFile(f'it ends after {size} bytes, and not as an archive does')
    if end >= _LOCATOR.size and _read(file, end - _LOCATOR.size, 4) == b'PK\x06\x07':
        shown = here, count, length, start
        locator = end - _LOCATOR.size
        end = locator - _END64.size
        signature, rest, _, _, *more, here, count, length, start = _END64.unpack(_read(file, end, _END64.size))
        limited = min(here, 0xFFFF), min(count, 0xFFFF), min(length, _IN_EXTRA), min(start, _IN_EXTRA)
        if (signature, rest, limited) != (b'PK\x06\x06', _END64.size - 12, shown):
            raise BadZipFile('two ends that differ')
        if _LOCATOR.unpack(_read(file, locator, _LOCATOR.size))[1:] != (0, end, 1):
            raise BadZipFile('an end in another place')
        disks += more
    if any(disks) or here != count or start + length != end:
        raise BadZipFile('its directory is in another place')
    if count > _MOST_RECORDS:
        raise Refused(f'{count} records')
    if length > count * _LONGEST_ENTRY:
        raise BadZipFile(f'a directory of {length} bytes for {count} records')
    return count, start, end


def _record(file: BinaryIO, directory: bytes, at: int, position: int) -> tuple[bytes, str, Record, int, int]:
    """The record whose entry is ``at`` in the directory and whose header has to be at ``position`` in the file.

    Returns:
        Its folder, its name, the record, the place of the next entry, and that of the next header.
    """
    if at + _ENTRY.size > len(directory):
        raise BadZipFile('fewer entries than its end says')
    fields = _ENTRY.unpack_from(directory, at)
    signature, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment, disk = fields[:14]
    attributes, offset = fields[15:]
    at += _ENTRY.size
    name, extra = directory[at : at + name_length], directory[at + name_length : at + name_length + extra_length]
    at += name_length + extra_length
    if signature != b'PK\x01\x02' or at > len(directory) or comment or disk:
        raise BadZipFile('an entry that is none')
    folder, key = _named(name)
    if method or flags & ~(_DESCRIBED | _UTF8):
        raise Refused('compressed records; torch.save writes none')
    if attributes & _FOLDER:
        raise Refused('a folder in the place of a record')
    size, packed, offset = _large(extra, size, packed, offset)
    if packed != size or offset != position:
        raise BadZipFile(f"'{key}' is in another place")
    header = _LOCAL.unpack(_read(file, offset, _LOCAL.size))
    signature, _, *same, _, _, local_crc, local_packed, local_size, local_name, local_extra = header
    allowed = {size, _IN_EXTRA, 0} if flags & _DESCRIBED else {size, _IN_EXTRA}
    if (
        (signature, *same) != (START, flags, method)
        or local_name != name_length
        or _read(file, offset + _LOCAL.size, name_length) != name
        or not {local_packed, local_size} <= allowed
        or local_crc not in ((crc, 0) if flags & _DESCRIBED else (crc,))
    ):
        raise BadZipFile(f"two headers of '{key}' that differ")
    record = Record(offset + _LOCAL.size + name_length + local_extra, size, crc)
    position = record.position + size
    return folder, key, record, at, position + (_description(file, position, record) if flags & _DESCRIBED else 0)


def _named(name: bytes) -> tuple[bytes, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        if _SCRIPT.search(name):
            raise Refused('a TorchScript archive, which is code')
        raise Refused(f'a record {name[:60]!r}, which torch.save does not write')
    return match[1], match[2].decode()


def _large(extra: bytes, *values: int) -> list[int]:
    """The values of an entry (size, packed size, offset), those that need it from its ZIP64 field."""
    needed = values.count(_IN_EXTRA)
    head = struct.pack('<2H', 1, 8 * needed) if needed else b''
    if not extra.startswith(head) or len(extra) != len(head) + 8 * needed:
        raise BadZipFile('an entry with other fields')
    found = iter(struct.unpack(f'<{needed}Q', extra[len(head) :]))
    return [next(found) if value == _IN_EXTRA else value for value in values]


def _description(file: BinaryIO, position: int, record: Record) -> int:
    """Bytes of the repeated CRC and sizes behind the content; torch writes none behind an empty one."""
    file.seek(position)
    content = file.read(24)
    for layout in ('<4sIQQ', '<4sIII'):
        if record.size <= _IN_EXTRA or 'Q' in layout:
            expected = struct.pack(layout, b'PK\x07\x08', record.crc, record.size, record.size)
            if content.startswith(expected):
                return len(expected)
    if record.size:
        raise BadZipFile('sizes that differ')
    return 0


def _check_sums(file: BinaryIO, records: dict[str, Record]) -> None:
    for name, record in records.items():
        file.seek(record.position)
        left, found = record.size, 0
        while left:
            part = file.read(min(left, 1 << 20))
            if not part:
                raise BadZipFile(f"the content of '{name}' is not all there")
            found = zlib.crc32(part, found)
            left -= len(part)
        if found != record.crc:
            raise BadZipFile(f"the content of '{name}' is not that of its checksum")


def _check_view_of_torch(file: BinaryIO, records: dict[str, Record]) -> None:
    """Compare with what torch itself finds, in case that its reader has peculiarities that are not known here."""
    file.seek(0)
    reader = torch._C.PyTorchFileReader(file)
    if reader.get_all_records() != list(records) or any(
        reader.get_record_offset(name) != record.position for name, record in records.items()
    ):
        raise Refused('an archive that torch reads in another way')
