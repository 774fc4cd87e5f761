"""A file's bytes as a whole: replace, write, truncate, free, share with a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from dfslib.errors import FileTooLarge, InvalidArgument, IsADirectory
from dfslib.model import FILE_SIZE_MAX, Attr, Extent, FileType, InodeId
from dfslib.namenode.metadata.engine import ReadTxn, Txn
from dfslib.namenode.namespace import extents, keys, records


class Range(NamedTuple):
    """Bytes [start, end) of a file."""

    ino: InodeId
    start: int
    end: int


def read_extents(txn: ReadTxn, ino: InodeId) -> list[Extent]:
    """All extents of a file, sorted."""
    return [extent for _, chunk in records.scan_chunks(txn, ino) for extent in chunk]


def replace_content(txn: Txn, ino: InodeId, size: int, pieces: Sequence[Extent], now_ns: int) -> Attr:
    """Make the file exactly these pieces; the rest up to `size` is a hole."""
    file = _resized(_regular(txn, ino), size)
    if any(piece.end > size for piece in pieces):
        raise InvalidArgument("bytes lie behind the end of the file")
    freed = _cut_from(txn, ino, 0)
    return _changed(txn, file, -freed, _lay_all(txn, ino, pieces), now_ns)


def write_content(txn: Txn, ino: InodeId, offset: int, pieces: Sequence[Extent], now_ns: int) -> Attr:
    """Lay pieces, whose offsets count from `offset`, over the file; it grows as far as they reach."""
    file = _regular(txn, ino)
    if offset < 0:
        raise InvalidArgument("an offset is not negative")
    moved = [Extent(offset + piece.offset, piece.length, piece.block, piece.block_offset) for piece in pieces]
    file = _resized(file, max([file.size, *(piece.end for piece in moved)]))
    return _changed(txn, file, 0, _lay_all(txn, ino, moved), now_ns)


def append_content(txn: Txn, ino: InodeId, pieces: Sequence[Extent], now_ns: int) -> Attr:
    """Write at the end, wherever it is in this transaction: appends of several writers never overlap."""
    return write_content(txn, ino, _regular(txn, ino).size, pieces, now_ns)


def truncate(txn: Txn, ino: InodeId, size: int, now_ns: int) -> Attr:
    """Cut the file to `size` bytes or let it grow to that with a hole: truncate(2)."""
    old = _regular(txn, ino)
    file = _resized(old, size)
    freed = _cut_from(txn, ino, size) if size < old.size else 0
    return _changed(txn, file, -freed, 0, now_ns)


def punch(txn: Txn, ino: InodeId, start: int, end: int, now_ns: int) -> Attr:
    """Make bytes [start, end) a hole; the size stays (fallocate(2), FALLOC_FL_PUNCH_HOLE)."""
    file = _regular(txn, ino)
    if not 0 <= start <= end:
        raise InvalidArgument("a range begins before it ends, and not below 0")
    freed = _cut(txn, ino, start, min(end, file.size))
    return _changed(txn, file, -freed, 0, now_ns)


def copy_range(txn: Txn, source: Range, target: InodeId, target_offset: int, now_ns: int) -> Attr:
    """Give `target`, from `target_offset` on, the bytes of a range of `source`, holes included, as far as they
    go; both then use the same blocks (copy_file_range(2)). Raises InvalidArgument where the two overlap."""
    origin, file = _regular(txn, source.ino), _regular(txn, target)
    end = min(source.end, origin.size)
    if min(source.start, target_offset) < 0:
        raise InvalidArgument("an offset is not negative")
    length, shift = max(0, end - source.start), target_offset - source.start
    if source.ino == target and abs(shift) < length:
        raise InvalidArgument("the two ranges overlap")
    if not length:
        return file
    pieces = [
        Extent(piece.offset + shift, piece.length, piece.block, piece.block_offset)
        for piece in read_range(txn, source.ino, source.start, end)
    ]
    file = _resized(file, max(file.size, target_offset + length))
    freed = _cut(txn, target, target_offset, target_offset + length)
    return _changed(txn, file, -freed, _lay_all(txn, target, pieces), now_ns)


def read_range(txn: ReadTxn, ino: InodeId, start: int, end: int) -> list[Extent]:
    """The extents of bytes [start, end) of a file, cut to that, sorted."""
    found: list[Extent] = []
    for index, chunk in records.scan_chunks(txn, ino, keys.chunk_of(start)):
        if index > keys.chunk_of(max(start, end - 1)):
            break
        found += extents.cut(extents.cut(chunk, 0, start), end, FILE_SIZE_MAX)
    return found


def release_content(txn: Txn, ino: InodeId) -> None:
    """Free all bytes of an inode that goes away."""
    if freed := _cut_from(txn, ino, 0):
        records.add_totals(txn, bytes=-freed)


def share_content(txn: Txn, source: InodeId, target: InodeId, now_ns: int) -> Attr:
    """Give `target` the bytes of `source`; both then use the same blocks."""
    file = _regular(txn, source)
    return replace_content(txn, target, file.size, read_extents(txn, source), now_ns)


def _regular(txn: ReadTxn, ino: InodeId) -> Attr:
    attr = records.get_attr(txn, ino)
    if attr.is_dir:
        raise IsADirectory
    if attr.type is not FileType.FILE:
        raise InvalidArgument("not a regular file")
    return attr


def _resized(file: Attr, size: int) -> Attr:
    """Asked before extents are laid: offsets past the largest have no key."""
    if size < 0:
        raise InvalidArgument("a size is not negative")
    if size > FILE_SIZE_MAX:
        raise FileTooLarge
    return replace(file, size=size)


def _lay_all(txn: Txn, ino: InodeId, pieces: Sequence[Extent]) -> int:
    by_chunk: dict[int, list[Extent]] = {}
    for piece in pieces:
        for index, part in extents.by_chunk(piece):
            by_chunk.setdefault(index, []).append(part)
    grown = 0
    for index, parts in by_chunk.items():
        old = new = records.get_chunk(txn, ino, index)
        for part in parts:
            new = extents.lay(new, part)
        grown += extents.store_chunk(txn, ino, index, old, new)
    return grown


def _cut_from(txn: Txn, ino: InodeId, start: int) -> int:
    """Free everything from offset `start` on; how many bytes that were."""
    return _cut(txn, ino, start, FILE_SIZE_MAX)


def _cut(txn: Txn, ino: InodeId, start: int, end: int) -> int:
    """Free bytes [start, end); how many that were."""
    freed = 0
    for index, old in records.scan_chunks(txn, ino, keys.chunk_of(start)):
        if index > keys.chunk_of(max(start, end - 1)):
            break
        new = extents.cut(old, start, end)
        freed -= extents.store_chunk(txn, ino, index, old, new)
    return freed


def _changed(txn: Txn, file: Attr, freed: int, grown: int, now_ns: int) -> Attr:
    file = replace(
        file,
        allocated=file.allocated + freed + grown,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        version=max(file.version + 1, now_ns // 1000),
    )
    records.put_attr(txn, file)
    records.add_totals(txn, bytes=freed + grown)
    return file
