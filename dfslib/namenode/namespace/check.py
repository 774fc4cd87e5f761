"""The checker of every invariant that keys.py promises. `fsck` and the model tests run it; it changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from dfslib.model import BLOCK_SIZE, ROOT, Attr, BlockId, Extent, FileType, InodeId
from dfslib.namenode.metadata.engine import ReadTxn, prefix_end
from dfslib.namenode.namespace import extents, keys, records
from dfslib.namenode.namespace.records import Totals


class Problem(NamedTuple):
    """A promise that does not hold, and the inode or block it was found at."""

    detail: str
    ino: InodeId | None = None
    block: BlockId | None = None


def check(txn: ReadTxn) -> Iterator[Problem]:
    """All broken invariants of a snapshot. Memory: some 200 bytes an inode for the counts of names."""
    names: Counter[InodeId] = Counter()
    subdirectories: Counter[InodeId] = Counter()
    yield from _check_dentries(txn, names, subdirectories)
    yield from _check_inodes(txn, names, subdirectories)
    yield from _check_blocks(txn)
    yield from _check_owners(txn)


def _check_dentries(txn: ReadTxn, names: Counter[InodeId], subdirectories: Counter[InodeId]) -> Iterator[Problem]:
    for parent, name, dentry in records.scan_all_dentries(txn):
        names[dentry.ino] += 1
        holder = records.find_attr(txn, parent)
        if holder is None or not holder.is_dir:
            yield Problem(f"entry {name!r} lies in inode {parent}, which is no directory", parent)
        attr = records.find_attr(txn, dentry.ino)
        if attr is None:
            yield Problem(f"entry {name!r} of inode {parent} names an inode that is not there", dentry.ino)
            continue
        if attr.type is not dentry.type:
            yield Problem(f"entry {name!r} says type {dentry.type.name}, the inode {attr.type.name}", dentry.ino)
        if attr.is_dir:
            subdirectories[parent] += 1
            if attr.parent != parent:
                yield Problem(f"directory {name!r} has parent {attr.parent}, its entry is in {parent}", dentry.ino)


def _check_inodes(txn: ReadTxn, names: Counter[InodeId], subdirectories: Counter[InodeId]) -> Iterator[Problem]:
    detached = {InodeId(ino) for ino, _ in records.scan_state(txn, keys.DETACHED)}
    files = directories = total = last = 0
    for attr in records.scan_attrs(txn):
        last = max(last, attr.ino)
        if attr.is_dir:
            directories += 1
            yield from _check_directory(attr, names[attr.ino], subdirectories[attr.ino], attr.ino in detached)
        else:
            files += 1
            total += attr.allocated
            if attr.nlink != names[attr.ino]:
                yield Problem(f"nlink is {attr.nlink}, {names[attr.ino]} entries name it", attr.ino)
            yield from _check_content(txn, attr)
    if last > ROOT and last > records.last_inode(txn):
        yield Problem(f"inode {last} is above the last number given out", InodeId(last))
    for missing in detached:
        if records.find_attr(txn, missing) is None:
            yield Problem("a directory that was cut off is not there", missing)
    counted, totals = Totals(files, directories, total), records.get_totals(txn)
    if counted != totals:
        yield Problem(f"the totals are {totals}, counted are {counted}")


def _check_directory(attr: Attr, names: int, subdirectories: int, detached: bool) -> Iterator[Problem]:
    if attr.ino == ROOT:
        expected = 0
        if attr.parent != ROOT:
            yield Problem(f"the root's parent is {attr.parent}", attr.ino)
    else:
        expected = 0 if detached else 1
    if names != expected:
        yield Problem(f"a directory has {names} names", attr.ino)
    if attr.nlink != 2 + subdirectories and not detached:
        yield Problem(f"nlink is {attr.nlink} with {subdirectories} subdirectories", attr.ino)


def _check_content(txn: ReadTxn, attr: Attr) -> Iterator[Problem]:
    """A file's chunks, and that nothing else has any."""
    covered = 0
    for index, chunk in records.scan_chunks(txn, attr.ino):
        covered += extents.allocated(chunk)
        end = index * BLOCK_SIZE
        if not chunk:
            yield Problem(f"chunk {index} is stored and empty", attr.ino)
        for extent in chunk:
            if extent.length <= 0 or extent.offset < end or extent.end > (index + 1) * BLOCK_SIZE:
                yield Problem(f"extent {extent} overlaps another or leaves chunk {index}", attr.ino, extent.block)
            end = extent.end
            yield from _check_extent(txn, attr, index, extent)
        if attr.type is FileType.FILE and end > attr.size:
            yield Problem(f"chunk {index} reaches to {end}, the size is {attr.size}", attr.ino)
    if covered != attr.allocated:
        yield Problem(f"{attr.allocated} bytes are said to be allocated, extents have {covered}", attr.ino)
    if covered and attr.type is not FileType.FILE:
        yield Problem("something that is no regular file has content", attr.ino)
    if attr.type is FileType.SYMLINK and attr.size != len(attr.target):
        yield Problem(f"a symbolic link's size is {attr.size}, its target has {len(attr.target)} bytes", attr.ino)


def _check_extent(txn: ReadTxn, attr: Attr, index: int, extent: Extent) -> Iterator[Problem]:
    record = records.find_block(txn, extent.block)
    if record is None:
        yield Problem(f"extent {extent} is on a block that is not there", attr.ino, extent.block)
    elif extent.block_offset < 0 or extent.block_offset + extent.length > record.size:
        yield Problem(f"extent {extent} leaves its block of {record.size} bytes", attr.ino, extent.block)
    if txn.get(keys.reference(extent.block, attr.ino, index)) is None:
        yield Problem(f"chunk {index} uses the block without a reference", attr.ino, extent.block)


def _check_blocks(txn: ReadTxn) -> Iterator[Problem]:
    """Each block's live bytes and notes against the extents that its references lead to."""
    for block, record in records.scan_blocks(txn):
        live = 0
        for ino, index in records.scan_references(txn, block):
            used = sum(e.length for e in records.get_chunk(txn, ino, index) if e.block == block)
            if not used:
                yield Problem(f"a reference says that chunk {index} uses the block, it does not", ino, block)
            live += used
        if live != record.live:
            yield Problem(f"{record.live} bytes are said to be live, extents use {live}", None, block)
        if (txn.get(keys.garbage(block)) is not None) != (record.live == 0):
            yield Problem(f"with {record.live} live bytes the note that it is garbage is wrong", None, block)
        if (txn.get(keys.sparse(block)) is not None) != extents.is_sparse(record.size, record.live):
            yield Problem(f"with {record.live} of {record.size} live bytes the note on that is wrong", None, block)


def _check_owners(txn: ReadTxn) -> Iterator[Problem]:
    """Keys that belong to an inode or a block that is not there."""
    for prefix, kind in ((b"e", "a chunk"), (b"x", "an extended attribute")):
        previous = None
        for key, _ in txn.scan(prefix, prefix_end(prefix)):
            owner = keys.owner(key)
            if owner != previous and records.find_attr(txn, InodeId(owner)) is None:
                yield Problem(f"{kind} belongs to an inode that is not there", InodeId(owner))
            previous = owner
    for prefix in (b"r", keys.GARBAGE, keys.SPARSE):
        for key, _ in txn.scan(prefix, prefix_end(prefix)):
            block = BlockId(keys.owner(key) if prefix == b"r" else keys.state_id(key))
            if records.find_block(txn, block) is None:
                yield Problem("a reference or a note is about a block that is not there", None, block)
