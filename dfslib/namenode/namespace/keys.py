"""The schema: every key of the metadata store, what lies under it, and what always holds.

Integers are big-endian, so that scans run in their order. Values are msgpack (records.py).

| key                     | value       | what always holds |
|---|---|---|
| `i` ino                 | Attr        | nlink = dentries that name it; for a directory 2 + its subdirectories |
| `d` parent name         | Dentry      | the inode is there and has this type |
| `e` ino chunk           | extents     | sorted, not overlapping, inside the chunk, never an empty list |
| `b` block               | BlockRecord | live = bytes of all extents that point at it |
| `w` block               | bytes       | there if and only if the block is deferred: on no datanode yet |
| `r` block ino chunk     | (empty)     | there if and only if that chunk's extents use the block |
| `x` ino name            | bytes       | an extended attribute |
| `n` node                | NodeRecord  | a datanode that joined once |
| `a` node                | AdmittedRecord | its process; apart from `n`, which releases without this write anew |
| `sg` block              | 0           | the block has no live bytes: garbage, deleted after a delay |
| `sc` block              | 0           | 0 < live < half of its size: to be rewritten |
| `st` ino                | 0           | a directory cut off from the tree, with all below it: to be reaped |
| `so` ino                | 0           | a regular file without a name, nlink 0: kept while it is open, then freed |
| `q` id                  | Done        | what a request with this id came to |
| `sq` stamp id           | 0           | when that was (runtime.stamps): there for each `q` |
| `ss` id                 | name        | a mount's session that has not ended |
| `sk` name               |             | `cluster`: ClusterRecord; `totals`: Totals; `inode`: last number used |
| `sk` name               |             | `restored`: RestoredRecord; `restoring`: RestoringRecord, not whole |
| `sk` name               |             | `lineage`, `runs`: the engine's own (metadata/lineage.py) |

The cluster's level (wire/features.py), in its record, says which build can read all of this. What a build of a lower
level would not understand is written from that level on only; before it does, this table has to say so.

A directory's chunk keys and a file's dentry keys do not exist. Inode 1 is the root, its own parent.
"""

from __future__ import annotations

import struct
from typing import Final

from dfslib.model import BLOCK_SIZE, BlockId, InodeId, NodeId

_ID = struct.Struct(">cQ")
_ID2 = struct.Struct(">cQQ")
_ID3 = struct.Struct(">cQQQ")
_STATE = struct.Struct(">2sQ")
MAX_ID: Final = (1 << 64) - 1
OWNER_END: Final = _ID.size
"""Length of the part of an `e`, `x` or `r` key that `owner` reads."""

CLUSTER: Final = b"skcluster"
TOTALS: Final = b"sktotals"
LAST_INODE: Final = b"skinode"
RESTORED: Final = b"skrestored"
RESTORING: Final = b"skrestoring"

INODES: Final = b"i"
DENTRIES: Final = b"d"
CHUNKS: Final = b"e"
BLOCKS: Final = b"b"
DEFERRED: Final = b"w"
REFERENCES: Final = b"r"
XATTRS: Final = b"x"
NODES: Final = b"n"
ADMITTED: Final = b"a"
GARBAGE: Final = b"sg"
SPARSE: Final = b"sc"
DETACHED: Final = b"st"
ORPHANS: Final = b"so"
REQUESTS: Final = b"q"
REQUEST_TIMES: Final = b"sq"
SESSIONS: Final = b"ss"


def inode(ino: InodeId) -> bytes:
    return _ID.pack(b"i", ino)


def inode_of(inode_key: bytes) -> InodeId:
    return InodeId(_ID.unpack(inode_key)[1])


def dentry(parent: InodeId, name: bytes) -> bytes:
    return _ID.pack(b"d", parent) + name


def dentries(parent: InodeId) -> bytes:
    return _ID.pack(b"d", parent)


def name_of(dentry_key: bytes) -> bytes:
    return dentry_key[9:]


def parent_of(dentry_key: bytes) -> InodeId:
    return InodeId(_ID.unpack_from(dentry_key)[1])


def chunk_of(offset: int) -> int:
    return offset // BLOCK_SIZE


def chunk(ino: InodeId, index: int) -> bytes:
    return _ID2.pack(b"e", ino, index)


def chunks(ino: InodeId) -> bytes:
    return _ID.pack(b"e", ino)


def chunk_index(chunk_key: bytes) -> int:
    return int(_ID2.unpack(chunk_key)[2])


def block(block_id: BlockId) -> bytes:
    return _ID.pack(b"b", block_id)


def block_of(block_key: bytes) -> BlockId:
    """Of a `b` or a `w` key."""
    return BlockId(_ID.unpack(block_key)[1])


def deferred(block_id: BlockId) -> bytes:
    return _ID.pack(b"w", block_id)


def reference(block_id: BlockId, ino: InodeId, index: int) -> bytes:
    return _ID3.pack(b"r", block_id, ino, index)


def references(block_id: BlockId) -> bytes:
    return _ID.pack(b"r", block_id)


def reference_target(reference_key: bytes) -> tuple[InodeId, int]:
    """The inode and the chunk that use the block."""
    _, _, ino, index = _ID3.unpack(reference_key)
    return InodeId(ino), index


def xattr(ino: InodeId, name: bytes) -> bytes:
    return _ID.pack(b"x", ino) + name


def xattrs(ino: InodeId) -> bytes:
    return _ID.pack(b"x", ino)


def node(node_id: NodeId) -> bytes:
    return b"n" + node_id.encode()


def admitted(node_id: NodeId) -> bytes:
    return ADMITTED + node_id.encode()


def session(session_id: str) -> bytes:
    return SESSIONS + session_id.encode()


def session_of(session_key: bytes) -> str:
    return session_key[len(SESSIONS) :].decode()


def owner(key: bytes) -> int:
    """The inode of a `e` or `x` key, the block of a `r` key."""
    return int(_ID.unpack_from(key)[1])


def garbage(block_id: BlockId) -> bytes:
    return _STATE.pack(GARBAGE, block_id)


def sparse(block_id: BlockId) -> bytes:
    return _STATE.pack(SPARSE, block_id)


def detached(ino: InodeId) -> bytes:
    return _STATE.pack(DETACHED, ino)


def orphan(ino: InodeId) -> bytes:
    return _STATE.pack(ORPHANS, ino)


def state_id(state_key: bytes) -> int:
    """The block or inode of a `sg`, `sc`, `st` or `so` key."""
    return int(_STATE.unpack(state_key)[1])


def request(request_id: bytes) -> bytes:
    return b"q" + request_id


def request_time(time_ns: int, request_id: bytes) -> bytes:
    return _STATE.pack(REQUEST_TIMES, time_ns) + request_id


def request_stamp(request_time_key: bytes) -> int:
    return int(_STATE.unpack_from(request_time_key)[1])


def request_of(request_time_key: bytes) -> bytes:
    return request_time_key[_STATE.size :]
