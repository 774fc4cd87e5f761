"""The nouns of DFS as types: identifiers, inodes' attributes, extents, blocks. No behaviour, no I/O.

Structs that the metadata engine stores are `array_like`: they are msgpack arrays on disk and evolve by
appending fields with defaults. Times are nanoseconds since the epoch, sizes and offsets are bytes.
"""

from __future__ import annotations

import enum
from typing import Final, NewType

import msgspec

InodeId = NewType("InodeId", int)
"""Number of an inode; never used twice in the life of a cluster."""
BlockId = NewType("BlockId", int)
"""64 bits that grow with time; never used twice. 16 hexadecimal digits on the wire."""
NodeId = NewType("NodeId", str)
"""A datanode's UUID, 32 hexadecimal digits; lies on its volume and moves with it."""

ROOT: Final = InodeId(1)

BLOCK_SIZE: Final = 64 << 20
"""The largest block, and the length of a chunk: the part of a file whose extents share one key."""
NAME_MAX: Final = 255
"""Bytes in a name, as on ext4 and XFS."""
PATH_MAX: Final = 4096
"""Bytes in a path or a symlink's target (limits.h)."""
SYMLINKS_MAX: Final = 40
"""Symbolic links followed before ELOOP (path_resolution(7))."""
FILE_SIZE_MAX: Final = 1 << 60
"""Largest size of a file; far above any disk, below what would overflow an offset."""

REPLICATION_DEFAULT: Final = 0
"""The cluster's setting applies."""
REPLICATION_ALL: Final = -1
"""A copy on every datanode."""
REPLICATION_MAX: Final = 64
"""More copies than this by number is taken for a mistake; `all` has no bound."""


class FileType(enum.IntEnum):
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    CHARACTER = 5
    BLOCK = 6
    SOCKET = 7


class Attr(msgspec.Struct, frozen=True, array_like=True):
    """An inode. `mode` holds permission bits only (07777); the type is `type`.

    `version` changes with every change of content, and never takes a value twice.
    `allocated` counts the bytes that extents cover; a hole counts nothing.
    `parent` is set for directories alone, `target` for symbolic links alone.
    """

    ino: InodeId
    type: FileType
    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    size: int = 0
    allocated: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    version: int = 0
    rdev: int = 0
    parent: InodeId = InodeId(0)
    target: bytes = b""
    replication: int = REPLICATION_DEFAULT

    @property
    def is_dir(self) -> bool:
        return self.type is FileType.DIRECTORY

    @property
    def unprivileged_mode(self) -> int:
        """The mode after a write by somebody who may not keep setuid and setgid, or a chown by anybody (inode(7)): no
        setuid, and no setgid where the group may execute. On directories they mean something else, and stay."""
        return self.mode if self.is_dir else self.mode & ~(0o6000 if self.mode & 0o010 else 0o4000)


def clamped_time(time_ns: int) -> int:
    """The nearest time that an inode can have, from 1677 to 2262: what utimensat(2) does."""
    return max(-(1 << 63), min(time_ns, (1 << 63) - 1))


class Entry(msgspec.Struct, frozen=True):
    """A directory entry with the attributes of its inode."""

    name: bytes
    attr: Attr


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """`length` bytes of a file from `offset` lie in `block` from `block_offset`."""

    offset: int
    length: int
    block: BlockId
    block_offset: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.length


class BlockRef(msgspec.Struct, frozen=True):
    """A block that was written: its whole size, CRC32C, and the datanodes that hold it durably."""

    block: BlockId
    size: int
    crc32c: int
    nodes: tuple[NodeId, ...]


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """For whom a piece of a block was written; kept in the block's file, to recognise it without metadata.

    `ino` is 0 where the file did not exist yet when the block was written.
    """

    path: bytes
    ino: InodeId
    offset: int
    length: int
    block_offset: int = 0


def format_block(block: BlockId) -> str:
    return f"{block:016x}"


def parse_block(text: str) -> BlockId:
    """The block named by 16 lower-case hexadecimal digits. Raises ValueError."""
    if len(text) != 16 or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"{text!r} is not a block id (16 hexadecimal digits)")
    return BlockId(int(text, 16))


def format_etag(attr: Attr) -> str:
    """The strong entity tag of a file's content (RFC 9110, 8.8.3), quotes included."""
    return f'"{attr.ino:x}-{attr.version:x}"'
