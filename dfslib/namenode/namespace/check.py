"""The invariants of keys.py, checked: what fsck reports, and what tests ask after every step.

Reads only, and repairs nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from dfslib.model import BLOCK_SIZE, FILE_SIZE_MAX, ROOT, Attr, BlockId, Extent, FileType, InodeId
from dfslib.namenode.metadata.engine import ReadTxn, prefix_end
from dfslib.namenode.namespace import extents, keys, records
from dfslib.namenode.namespace.deferred import find_deferred, scan_deferred
from dfslib.namenode.namespace.records import BlockRecord, Totals
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL

_PAGE_BITS: Final = 1 << 15
_CHUNKS_KEPT: Final = 256
"""Decoded chunks at hand while blocks are walked: a block's neighbours are mostly used by the same chunks."""
_DIRECTORY_LINKS: Final = 2
"""Of a directory without subdirectories: its own name and its '.'."""


class Problem(NamedTuple):
    """A broken invariant, and where."""

    detail: str
    ino: InodeId | None = None
    block: BlockId | None = None


class _NumberSet:
    """Numbers, one bit each, in pages that are made when they are first needed."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, number: int) -> bool:
        """Whether it was new."""
        page = self._pages.setdefault(number // _PAGE_BITS, bytearray(_PAGE_BITS // 8))
        place, bit = number % _PAGE_BITS // 8, 1 << number % 8
        new = not page[place] & bit
        page[place] |= bit
        return new

    def __contains__(self, number: int) -> bool:
        page = self._pages.get(number // _PAGE_BITS)
        return page is not None and bool(page[number % _PAGE_BITS // 8] & 1 << number % 8)


def check(txn: ReadTxn) -> Iterator[Problem]:
    """Every broken invariant of the metadata, in no order that means anything.

    Takes a few lookups for each entry, extent and block. Needs, whatever the size of the tree, two bits
    of memory for each inode number ever used (less where long stretches of them are gone), a dictionary
    entry for each name of an inode beyond its first, and the chunks at hand. Raises what msgspec raises
    where a record cannot be decoded at all.
    """
    names = _Names()
    yield from _check_dentries(txn, names)
    yield from _check_inodes(txn, names)
    yield from _check_detached(txn)
    yield from _check_orphans(txn)
    yield from _check_rooted(txn)
    yield from _check_xattrs(txn)
    yield from _check_chunks(txn)
    yield from _check_blocks(txn)
    yield from _check_requests(txn)
    if not OLDEST_LEVEL <= (level := records.get_level(txn)) <= NEWEST_LEVEL:
        yield Problem(f"the cluster has level {level}, known are {OLDEST_LEVEL} to {NEWEST_LEVEL}")


class _Names:
    """How many entries name each inode."""

    def __init__(self) -> None:
        self._named = _NumberSet()
        self._further: Counter[InodeId] = Counter()

    def add(self, ino: InodeId) -> None:
        if not self._named.add(ino):
            self._further[ino] += 1

    def count(self, ino: InodeId) -> int:
        return int(ino in self._named) + self._further.get(ino, 0)


def _check_dentries(txn: ReadTxn, names: _Names) -> Iterator[Problem]:
    """Entries: their directory and their inode are there, and each knows the other."""
    previous: InodeId | None = None
    for parent, name, dentry in records.scan_all_dentries(txn):
        if parent != previous:
            previous = parent
            directory = records.find_attr(txn, parent)
            if directory is None or not directory.is_dir:
                what = "no inode" if directory is None else "no directory"
                yield Problem(f"entries from {name!r} on lie in inode {parent}, which is {what}", parent)
        names.add(dentry.ino)
        attr = records.find_attr(txn, dentry.ino)
        if attr is None:
            yield Problem(f"entry {name!r} of inode {parent} names an inode that is not there", dentry.ino)
            continue
        if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
            yield Problem(f"entry {name!r} of inode {parent} has a name that is none", dentry.ino)
        if attr.type is not dentry.type:
            yield Problem(
                f"entry {name!r} of inode {parent} says {dentry.type.name}, inode {attr.type.name}", dentry.ino
            )
        if attr.ino == ROOT:
            yield Problem(f"entry {name!r} of inode {parent} names the root", dentry.ino)
        elif attr.is_dir and attr.parent != parent:
            yield Problem(f"entry {name!r} of inode {parent} names a directory with parent {attr.parent}", dentry.ino)


def _check_inodes(txn: ReadTxn, names: _Names) -> Iterator[Problem]:
    """Inodes one by one, and what adds up over all of them."""
    files = directories = allocated = last = 0
    for attr in records.scan_attrs(txn):
        last = max(last, attr.ino)
        allocated += attr.allocated
        if attr.is_dir:
            directories += 1
            yield from _check_directory(txn, attr, names.count(attr.ino))
        else:
            files += 1
            yield from _check_file(txn, attr, names.count(attr.ino))
    root = records.find_attr(txn, ROOT)
    if root is None or not root.is_dir or root.parent != ROOT:
        yield Problem("the root is no directory that is its own parent", ROOT)
    totals = records.get_totals(txn)
    if totals != (counted := Totals(files, directories, allocated)):
        yield Problem(f"the totals say {totals}, counted are {counted}")
    if last > (issued := records.last_inode(txn)):
        yield Problem(f"inode {last} is above the last number given out, {issued}", InodeId(last))


def _check_directory(txn: ReadTxn, attr: Attr, names: int) -> Iterator[Problem]:
    subdirectories = sum(d.type is FileType.DIRECTORY for _, d in records.scan_dentries(txn, attr.ino))
    if attr.nlink != _DIRECTORY_LINKS + subdirectories:
        yield Problem(f"directory has nlink {attr.nlink} and {subdirectories} subdirectories", attr.ino)
    cut_off = txn.get(keys.detached(attr.ino)) is not None
    wanted = 0 if cut_off or attr.ino == ROOT else 1
    if names != wanted:
        what = "that was cut off " if cut_off else ""
        yield Problem(f"directory {what}has {names} names instead of {wanted}", attr.ino)
    if attr.size or attr.allocated or attr.target:
        yield Problem("directory has a size, content or a target", attr.ino)


def _check_file(txn: ReadTxn, attr: Attr, names: int) -> Iterator[Problem]:
    orphaned = attr.type is FileType.FILE and txn.get(keys.orphan(attr.ino)) is not None
    if attr.nlink != names or bool(names) == orphaned:
        what = ", and is noted as an orphan" if orphaned else ""
        yield Problem(f"inode has nlink {attr.nlink} and {names} names{what}", attr.ino)
    if attr.parent:
        yield Problem(f"inode is no directory and has parent {attr.parent}", attr.ino)
    if attr.type is FileType.SYMLINK:
        if not attr.target or attr.size != len(attr.target):
            yield Problem(f"symbolic link has size {attr.size} and a target of {len(attr.target)} bytes", attr.ino)
    elif attr.target:
        yield Problem("inode is no symbolic link and has a target", attr.ino)
    elif attr.type is not FileType.FILE and attr.size:
        yield Problem(f"inode is no file and has size {attr.size}", attr.ino)
    if attr.type is FileType.FILE:
        if not 0 <= attr.size <= FILE_SIZE_MAX:
            yield Problem(f"file has size {attr.size}", attr.ino)
        if attr.allocated and next(records.scan_chunks(txn, attr.ino), None) is None:
            yield Problem(f"file has {attr.allocated} bytes allocated and no extents", attr.ino)
    elif attr.allocated:
        yield Problem(f"inode is no file and has {attr.allocated} bytes allocated", attr.ino)


def _check_detached(txn: ReadTxn) -> Iterator[Problem]:
    for number, _ in records.scan_state(txn, keys.DETACHED):
        ino = InodeId(number)
        attr = records.find_attr(txn, ino)
        if attr is None or not attr.is_dir or ino == ROOT:
            yield Problem("noted as cut off, and no directory below the root", ino)


def _check_orphans(txn: ReadTxn) -> Iterator[Problem]:
    for number, _ in records.scan_state(txn, keys.ORPHANS):
        attr = records.find_attr(txn, InodeId(number))
        if attr is None or attr.type is not FileType.FILE:
            yield Problem("noted as an orphan, and no file", InodeId(number))


def _check_rooted(txn: ReadTxn) -> Iterator[Problem]:
    """From every directory, parents lead to the root or to one that was cut off; never in a circle."""
    rooted = _NumberSet()
    rooted.add(ROOT)
    for attr in records.scan_attrs(txn):
        if not attr.is_dir or attr.ino in rooted:
            continue
        way: dict[InodeId, None] = {}  # in order, and quick to ask
        here: Attr | None = attr
        while here is not None and here.ino not in rooted and here.ino not in way:
            way[here.ino] = None
            if txn.get(keys.detached(here.ino)) is not None:
                rooted.add(here.ino)
            else:
                here = records.find_attr(txn, here.parent)
        if here is None or here.ino not in rooted:
            yield Problem("directory is not reachable from the root", attr.ino)
        for ino in way:
            rooted.add(ino)  # said once is enough


def _check_xattrs(txn: ReadTxn) -> Iterator[Problem]:
    for number in _owners(txn, keys.XATTRS):
        if records.find_attr(txn, InodeId(number)) is None:
            yield Problem("extended attributes of an inode that is not there", InodeId(number))


def _owners(txn: ReadTxn, prefix: bytes) -> Iterator[int]:
    """The numbers behind a prefix of one letter, each once."""
    start, end = prefix, prefix_end(prefix)
    while (first := next(iter(txn.scan(start, end)), None)) is not None:
        number = keys.owner(first[0])
        yield number
        start = prefix_end(first[0][: keys.OWNER_END])


def _check_chunks(txn: ReadTxn) -> Iterator[Problem]:
    for number in _owners(txn, keys.CHUNKS):
        ino = InodeId(number)
        attr = records.find_attr(txn, ino)
        if attr is None or attr.type is not FileType.FILE:
            yield Problem("extents of an inode that is not there, or no file", ino)
        covered = reached = 0
        for index, chunk in records.scan_chunks(txn, ino):
            if not chunk:
                yield Problem(f"chunk {index} is stored and empty", ino)
            reached = index * BLOCK_SIZE
            for extent in chunk:
                if extent.length <= 0 or extent.offset < reached or extent.end > (index + 1) * BLOCK_SIZE:
                    yield Problem(f"{extent} is out of order, overlaps, or leaves chunk {index}", ino, extent.block)
                reached = max(reached, extent.end)
                covered += extent.length
                yield from _check_extent(txn, ino, index, extent)
        if attr is not None and reached > attr.size:
            yield Problem(f"extents reach to {reached}, behind the end at {attr.size}", ino)
        if attr is not None and covered != attr.allocated:
            yield Problem(f"{attr.allocated} bytes are said to be allocated, extents have {covered}", ino)


def _check_extent(txn: ReadTxn, ino: InodeId, index: int, extent: Extent) -> Iterator[Problem]:
    record = records.find_block(txn, extent.block)
    if record is None:
        yield Problem(f"{extent} points at a block that is not there", ino, extent.block)
    elif extent.block_offset < 0 or extent.block_offset + extent.length > record.size:
        yield Problem(f"{extent} reaches outside of its block of {record.size} bytes", ino, extent.block)
    if txn.get(keys.reference(extent.block, ino, index)) is None:
        yield Problem(f"{extent} has no reference from its block", ino, extent.block)


def _check_blocks(txn: ReadTxn) -> Iterator[Problem]:
    """Blocks' accounts against the chunks that use them, and the notes about blocks."""
    usage = _usage(txn)
    for block, record in records.scan_blocks(txn):
        live = 0
        for ino, index in records.scan_references(txn, block):
            used = usage(ino, index)[block]
            live += used
            if not used:
                yield Problem(f"reference from chunk {index}, which does not use the block", ino, block)
        if live != record.live:
            yield Problem(f"block has {record.live} live bytes noted and {live} in use", None, block)
        yield from _check_notes(txn, block, record)
    yield from _check_unknown_blocks(txn)


def _check_notes(txn: ReadTxn, block: BlockId, record: BlockRecord) -> Iterator[Problem]:
    notes = (
        ("garbage", keys.garbage(block), record.live == 0),
        ("sparse", keys.sparse(block), extents.is_sparse(record)),
        ("deferred", keys.deferred(block), record.deferred),
    )
    for what, key, wanted in notes:
        if wanted != (txn.get(key) is not None):
            state = f"{record.live} of {record.size} bytes live"
            yield Problem(f"block with {state} is {'not ' if wanted else ''}noted as {what}", None, block)
    if len(set(record.nodes)) != len(record.nodes):
        yield Problem("block names a datanode twice", None, block)
    if (data := find_deferred(txn, block)) is not None and (len(data), crc32c(data)) != (record.size, record.crc32c):
        yield Problem("the bytes of a deferred block are not those that were written", None, block)


def _check_unknown_blocks(txn: ReadTxn) -> Iterator[Problem]:
    for number in _owners(txn, keys.REFERENCES):
        if records.find_block(txn, BlockId(number)) is None:
            yield Problem("references of a block that is not there", None, BlockId(number))
    for prefix, what in ((keys.GARBAGE, "garbage"), (keys.SPARSE, "sparse")):
        for number, _ in records.scan_state(txn, prefix):
            if records.find_block(txn, BlockId(number)) is None:
                yield Problem(f"a block that is not there is noted as {what}", None, BlockId(number))
    for block, _ in scan_deferred(txn):
        if records.find_block(txn, block) is None:
            yield Problem("bytes of a deferred block that is not there", None, block)


def _check_requests(txn: ReadTxn) -> Iterator[Problem]:
    """Requests that are remembered, and when each is to be forgotten."""
    times = 0
    for key, _ in txn.scan(keys.REQUEST_TIMES, prefix_end(keys.REQUEST_TIMES)):
        times += 1
        if txn.get(keys.request(keys.request_of(key))) is None:
            yield Problem(f"request {keys.request_of(key)!r} has a time and no answer")
    answers = sum(1 for _ in txn.scan(keys.REQUESTS, prefix_end(keys.REQUESTS)))
    if answers != times:
        yield Problem(f"{answers} requests have an answer, {times} have a time")


def _usage(txn: ReadTxn) -> Callable[[InodeId, int], Counter[BlockId]]:
    """Bytes by block of a chunk; the last ones asked for are kept."""
    kept: OrderedDict[tuple[InodeId, int], Counter[BlockId]] = OrderedDict()

    def usage(ino: InodeId, index: int) -> Counter[BlockId]:
        found = kept.get((ino, index))
        if found is None:
            found = extents.bytes_by_block(records.get_chunk(txn, ino, index))
            kept[ino, index] = found
            if len(kept) > _CHUNKS_KEPT:
                kept.popitem(last=False)
        else:
            kept.move_to_end((ino, index))
        return found

    return usage
