"""The directory of the zip file that `torch.save` writes, read without trusting a single number of it.

`torch.save` stores its entries uncompressed, so an entry is a range of the file and can stay mapped. Compressed entries
are refused: only zip bombs have them. Layout of the records: PKWARE APPNOTE 4.3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

from data2vec.conversion.errors import CheckpointError

_END = struct.Struct("<4s4H2LH")  # end of central directory
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_ENTRIES = 200_000  # the largest published file has about 2,000
_MAX_COMMENT = 65_535
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 field"


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes of the file, checked to lie inside it."""

    start: int
    size: int


def read_directory(data: mmap.mmap) -> dict[str, Span]:
    """Find every entry of a zip file.

    Args:
        data: the whole file, mapped.

    Returns:
        entry name -> where its bytes lie.

    Raises:
        CheckpointError: the file is cut off, damaged, encrypted, compressed, or claims more than it holds.
    """
    try:
        position, size, count = _find_directory(data)
        if position + size > len(data) or count * _CENTRAL.size > size:
            raise CheckpointError("the zip directory claims to be larger than the file: the file is cut off or damaged")
        if count > _MAX_ENTRIES:
            raise CheckpointError(f"the zip directory has {count} entries; a checkpoint has at most {_MAX_ENTRIES}")
        return _read_entries(data, position, position + size, count)
    except (struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"damaged zip directory ({error}): fetch the file again") from error


def _find_directory(data: mmap.mmap) -> tuple[int, int, int]:
    """Offset, size and number of entries of the central directory."""
    tail = max(0, len(data) - _END.size - _MAX_COMMENT)
    end = data.rfind(b"PK\x05\x06", tail)
    if end < 0:
        raise CheckpointError("the zip file has no end: the download was cut off; fetch the file again")
    _, _, _, _, count, size, position, _ = _END.unpack_from(data, end)
    if count == _FULL16 or size == _FULL32 or position == _FULL32:
        if end < _END64_LOCATOR.size:
            raise CheckpointError("damaged zip directory: fetch the file again")
        mark, _, end64, _ = _END64_LOCATOR.unpack_from(data, end - _END64_LOCATOR.size)
        if mark == b"PK\x06\x07":
            if end64 + _END64.size > len(data):
                raise CheckpointError("the zip directory lies beyond the end of the file: fetch the file again")
            mark, _, _, _, _, _, _, count, size, position = _END64.unpack_from(data, end64)
            if mark != b"PK\x06\x06":
                raise CheckpointError("damaged zip64 directory: fetch the file again")
    return position, size, count


def _read_entries(data: mmap.mmap, position: int, end: int, count: int) -> dict[str, Span]:
    entries: dict[str, Span] = {}
    for _ in range(count):
        fields = _CENTRAL.unpack_from(data, position)
        mark, flags, method = fields[0], fields[3], fields[4]
        stored, size, name_length, extra_length, comment_length, local = *fields[8:13], fields[16]
        body = position + _CENTRAL.size
        position = body + name_length + extra_length + comment_length
        if mark != b"PK\x01\x02" or position > end:
            raise CheckpointError("damaged zip directory: fetch the file again")
        name = data[body : body + name_length].decode("utf-8")
        extra = data[body + name_length : body + name_length + extra_length]
        size, stored, local = _zip64(extra, size, stored, local)
        if method != 0 or size != stored or flags & 1:
            raise CheckpointError(
                f"zip entry {name!r} is compressed or encrypted; torch.save never does that, and a compressed entry "
                "can be a zip bomb. If you trust the file, load and save it again with torch"
            )
        if name in entries:
            raise CheckpointError(f"zip entry {name!r} appears twice: the file is damaged or made to deceive")
        entries[name] = _locate(data, name, local, size)
    return entries


def _zip64(extra: bytes, size: int, stored: int, local: int) -> tuple[int, int, int]:
    """Replace the fields that say 0xFFFFFFFF by those of the zip64 extra field, in its fixed order."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == 1:
            body = extra[position : position + length]
            numbers = iter(struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8]))
            size, stored, local = (next(numbers, v) if v == _FULL32 else v for v in (size, stored, local))
        position += length
    return size, stored, local


def _locate(data: mmap.mmap, name: str, local: int, size: int) -> Span:
    if local + _LOCAL.size > len(data):
        raise CheckpointError(f"zip entry {name!r} lies beyond the end of the file: the download was cut off")
    fields = _LOCAL.unpack_from(data, local)
    start = local + _LOCAL.size + fields[9] + fields[10]
    if fields[0] != b"PK\x03\x04":
        raise CheckpointError(f"zip entry {name!r} has no header: the file is damaged; fetch it again")
    if start + size > len(data):
        raise CheckpointError(f"zip entry {name!r} claims {size} bytes, the file ends before: the download was cut off")
    return Span(start, size)
