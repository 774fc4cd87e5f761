"""Paths, parameters and headers of the HTTP interface, each written once."""

from __future__ import annotations

from typing import Final

from dfslib.model import BlockId, InodeId, format_block
from dfslib.wire.paths import encode_name, encode_path

PROTOCOL_VERSION: Final = 1
"""Raised when a client of the version before could not work with this one. Datanodes and mounts go by levels
(features.py)."""

# Namenode
FS: Final = "/fs"
SESSION: Final = "/session"
CLUSTER: Final = "/cluster"
CLUSTER_DF: Final = "/cluster/df"
CLUSTER_FSCK: Final = "/cluster/fsck"
CLUSTER_JOIN: Final = "/cluster/join"
CLUSTER_HEARTBEAT: Final = "/cluster/heartbeat"
CLUSTER_REPORT: Final = "/cluster/report"
CLUSTER_DRAIN: Final = "/cluster/drain"
CLUSTER_FORGET: Final = "/cluster/forget"
CLUSTER_RESTORE: Final = "/cluster/restore"
CLUSTER_OPEN: Final = "/cluster/open"
CLUSTER_RELEASE: Final = "/cluster/release"
CLUSTER_UPGRADE: Final = "/cluster/upgrade"
CLUSTER_LAYOUT: Final = "/cluster/layout"
CLUSTER_LOCATE: Final = "/cluster/locate"
# Datanode
FILES: Final = "/files"
BLOCKS: Final = "/blocks"
SYNC: Final = "/sync"
"""Make every block that was acknowledged durable."""
METADATA: Final = "/metadata"
"""Copies of the namenode's metadata, as files with names."""
# Both
HEALTHZ: Final = "/healthz"
READY: Final = "ready"
"""Parameter of HEALTHZ: whether an orchestrator may send others here and go on with the next process."""
METRICS: Final = "/metrics"

HEADER_TYPE: Final = "X-DFS-Type"
HEADER_MODE: Final = "X-DFS-Mode"
HEADER_UID: Final = "X-DFS-Uid"
HEADER_GID: Final = "X-DFS-Gid"
HEADER_REPLICATION: Final = "X-DFS-Replication"
HEADER_INODE: Final = "X-DFS-Inode"
HEADER_NLINK: Final = "X-DFS-Nlink"
HEADER_SIZE: Final = "X-DFS-Size"
HEADER_ALLOCATED: Final = "X-DFS-Allocated"
HEADER_MTIME: Final = "X-DFS-Mtime-Ns"
HEADER_ATIME: Final = "X-DFS-Atime-Ns"
HEADER_CTIME: Final = "X-DFS-Ctime-Ns"
HEADER_VERSION: Final = "X-DFS-Version"
HEADER_TARGET: Final = "X-DFS-Target"
"""A symbolic link's target, percent-encoded."""
HEADER_RDEV: Final = "X-DFS-Rdev"
HEADER_CRC32C: Final = "X-DFS-CRC32C"
"""Of a whole block, 8 hexadecimal digits. In a PUT: refuse the block unless it matches."""
HEADER_ORIGIN: Final = "X-DFS-Origin"
"""For whom a block is written: base64url of msgpack, a list of model.Origin."""
HEADER_CACHED: Final = "X-DFS-Cached"
"""In the PUT of a block, `true`: readers will be sent here first, keep it in memory where that is possible."""
HEADER_GRANT: Final = "X-DFS-Grant"
"""In the PUT of a block: send it to these datanodes, base64url of msgpack, a session.Grant."""
HEADER_SYNC: Final = "X-DFS-Sync"
"""In the PUT of a block, `false`: answer once it is in memory; it goes to the disk soon, or at `POST /sync`."""
HEADER_POSITION: Final = "X-DFS-Position"
"""In the PUT of a copy of metadata: how far it leads (positions.py)."""
HEADER_REQUEST_ID: Final = "X-DFS-Request-Id"
"""A client's name for a request that changes something; with the same one again, it is done once."""
HEADER_ERROR: Final = "X-DFS-Error"
"""An error's code, where the answer may have no body (HEAD)."""

MAX_LINE_BYTES: Final = 64 << 10
"""Longest request line that servers parse: PATH_MAX percent-encoded, twice, with room to say why not."""
MAX_HEADER_BYTES: Final = 128 << 10
"""Longest header: an origin list of MAX_ORIGIN_BYTES in base64."""
MAX_ORIGIN_BYTES: Final = 48 << 10


def fs(path: bytes) -> str:
    """`/fs/PATH` for an absolute or relative path of the tree."""
    return f"{FS}/{encode_path(path.lstrip(b'/'))}"


def file(ino: InodeId, version: int, name: bytes) -> str:
    """A whole file on a datanode. The name is there for people and programs that save by it."""
    return f"{FILES}/{ino}/{version}/{encode_name(name)}"


def block(block_id: BlockId) -> str:
    return f"{BLOCKS}/{format_block(block_id)}"


def layout(ino: InodeId) -> str:
    return f"{CLUSTER_LAYOUT}/{ino}"


def locate(block_id: BlockId) -> str:
    return f"{CLUSTER_LOCATE}/{format_block(block_id)}"
