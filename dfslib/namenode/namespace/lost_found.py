"""Blocks that the metadata does not know, made files below `/lost+found` by what their headers tell.

After metadata was restored from a copy, datanodes hold blocks of the changes that it lacks. Each piece of such
a block goes to a file of the path it was written for; where bytes of another block lie there already (a file
that was written twice), to the next of `name`, `name (2)`, `name (3)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from dfslib.model import NAME_MAX, ROOT, BlockId, BlockRef, Extent, FileType, InodeId, Origin, format_block
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import content, extents, records
from dfslib.namenode.namespace.create import NewInode, create

LOST_FOUND: Final = b"lost+found"
_FOLDER: Final = NewInode(type=FileType.DIRECTORY, mode=0o700)
_FILE: Final = NewInode(type=FileType.FILE, mode=0o600)
_NAMES_MAX: Final = 10_000
"""Files of one path; a block that fits into none of them gets one of its own."""


class FoundBlock(NamedTuple):
    """A block as the datanodes that have it describe it."""

    ref: BlockRef
    origins: Sequence[Origin]


def adopt(txn: Txn, found: FoundBlock, now_ns: int) -> bool:
    """Make the pieces of a block parts of files; False where the metadata knows the block.

    Then it only notes who holds it: what another datanode reports of the same block arrives here again.
    """
    ref = found.ref
    known = records.find_block(txn, ref.block)
    if known is not None:
        missing = tuple(node for node in ref.nodes if node not in known.nodes)
        if missing:
            records.put_block(txn, ref.block, replace(known, nodes=(*known.nodes, *missing)))
        return False
    extents.add_block(txn, ref)
    whole = Origin(b"block-" + format_block(ref.block).encode(), InodeId(0), 0, ref.size)
    for origin in _sound(found) or [whole]:
        _place(txn, ref, origin, now_ns)
    return True


def _sound(found: FoundBlock) -> list[Origin]:
    """The origins that lie in the block, cut at its end: a stream's length was not known when it began."""
    size = found.ref.size
    cut = [replace(origin, length=min(origin.length, size - origin.block_offset)) for origin in found.origins]
    return [origin for origin in cut if origin.length > 0 and origin.block_offset >= 0 and origin.offset >= 0]


def _place(txn: Txn, ref: BlockRef, origin: Origin, now_ns: int) -> None:
    names = [name[:NAME_MAX] for name in origin.path.split(b"/") if name not in (b"", b".", b"..")]
    last = names.pop() if names else b"inode-%d" % origin.ino
    directory = _folder(txn, [LOST_FOUND, *names], now_ns)
    piece = Extent(0, origin.length, ref.block, origin.block_offset)
    for number in range(1, _NAMES_MAX):
        name = last if number == 1 else last[: NAME_MAX - 8] + b" (%d)" % number
        dentry = records.get_dentry(txn, directory, name)
        if dentry is None:
            ino = create(txn, directory, name, _FILE, _time_of(ref.block)).ino
        elif dentry.type is not FileType.FILE or _taken(txn, dentry.ino, origin):
            continue
        else:
            ino = dentry.ino
        content.write_content(txn, ino, origin.offset, [piece], _time_of(ref.block))
        return
    _place(txn, ref, Origin(b"block-" + format_block(ref.block).encode(), origin.ino, 0, ref.size), now_ns)


def _taken(txn: Txn, ino: InodeId, origin: Origin) -> bool:
    return bool(content.read_range(txn, ino, origin.offset, origin.offset + origin.length))


def _folder(txn: Txn, names: Sequence[bytes], now_ns: int) -> InodeId:
    """The directory these names lead to, made where it is missing; past a file that is in the way, `name (2)`."""
    here = ROOT
    for name in names:
        for number in range(1, _NAMES_MAX):
            tried = name if number == 1 else name[: NAME_MAX - 8] + b" (%d)" % number
            dentry = records.get_dentry(txn, here, tried)
            if dentry is None:
                here = create(txn, here, tried, _FOLDER, now_ns).ino
                break
            if dentry.type is FileType.DIRECTORY:
                here = dentry.ino
                break
    return here


def _time_of(block: BlockId) -> int:
    """When a block was written: its id begins with milliseconds (runtime.ids)."""
    return (block >> 20) * 1_000_000
