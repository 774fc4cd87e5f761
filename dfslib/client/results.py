"""What the client's methods return: frozen dataclasses, made from the wire's messages. No I/O.

Sizes are bytes, times nanoseconds since the epoch, modes permission bits (07777), as in `os.stat`.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from dfslib.model import Attr, FileType, format_etag
from dfslib.wire import attributes, messages
from dfslib.wire.paths import decode_component

T = TypeVar("T")

_TYPE_BITS: Final = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "character": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "socket": stat.S_IFSOCK,
}


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file's attributes. `type` is `file`, `directory`, `symlink`, `fifo`, `character`, `block` or `socket`.

    `replication` is `default`, `all` or a number of copies; `replicas`, in the answer to a write, is the
    smallest number of datanodes that hold a part of it. `allocated` leaves holes out.
    """

    type: str
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    allocated: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    ino: int
    version: int
    etag: str
    target: str
    rdev: int
    replication: str
    replicas: int | None = None

    @property
    def is_dir(self) -> bool:
        return self.type == "directory"

    @property
    def is_file(self) -> bool:
        return self.type == "file"

    @property
    def is_symlink(self) -> bool:
        return self.type == "symlink"

    @property
    def mtime(self) -> float:
        """The time of the last change of content, in seconds."""
        return self.mtime_ns / 1e9

    @property
    def st_mode(self) -> int:
        """Type and permissions together, for the functions of `stat`."""
        return _TYPE_BITS[self.type] | self.mode

    @property
    def st_size(self) -> int:
        return self.size

    @property
    def st_mtime(self) -> float:
        return self.mtime

    def as_json(self) -> dict[str, Any]:
        """For `--json`: the mode in octal, empty fields left out."""
        fields = {name: getattr(self, name) for name in FileInfo.__slots__}
        fields["mode"] = f"{self.mode:04o}"
        optional = {"target": "", "rdev": 0, "etag": "", "replicas": None}
        return {key: value for key, value in fields.items() if key not in optional or value != optional[key]}


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """`capacity`, `used` and `free` add up the live datanodes' volumes; `available` is what files can still
    take with the cluster's replication; `bytes` is what all files hold, each counted once."""

    capacity: int
    used: int
    free: int
    available: int
    bytes: int
    files: int
    directories: int
    nodes: int


@dataclass(frozen=True, slots=True)
class DatanodeInfo:
    """A datanode. `state` is `alive`, `suspect`, `draining` or `dead`; `last_seen` is in seconds since the epoch.

    `slow`: writes avoid it for a while. `to_move`, of one that is drained: blocks that lack copies elsewhere,
    0 when it can be taken away, None while that is being found out.
    """

    id: str
    state: str
    url: str
    public_url: str
    capacity: int
    used: int
    free: int
    blocks: int
    last_seen: float
    writable: bool
    slow: bool = False
    to_move: int | None = None


@dataclass(frozen=True, slots=True)
class RepairProgress:
    """Blocks that are `short` of copies or `lost`, at the last look; copies that wait, run, and are done since
    the namenode started."""

    short: int = 0
    lost: int = 0
    waiting: int = 0
    running: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class MetadataState:
    """The namenode's metadata. Times are in seconds since the epoch.

    `state` is `open`, `waiting` (until datanodes have shown that the metadata is the newest, or whether there is a
    cluster to be restored), `restoring`, or `checking` (it is checked before it is opened); `detail` says what it waits
    for, or which datanodes an open one refuses. `copied_until`: all changes up to then are on datanodes.
    `restored_until`: it was restored, or opened by force, and changes made elsewhere after that moment are missing.
    `held`: nothing is deleted from the datanodes until `release`. `checked`: when all of it was last found to be right;
    `checking`: it is checked now. `damage`: why the last metadata that was set aside was, and where it is.
    """

    state: str = "open"
    detail: str = ""
    copied_until: float | None = None
    restored_until: float | None = None
    held: bool = False
    checked: float | None = None
    checking: bool = False
    damage: str = ""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster and its datanodes. `replication` is `all` or a number. Where `level` is below `newest_level`, an
    upgrade is to be finalized."""

    cluster_id: str
    version: str
    protocol: int
    replication: str
    min_replicas: int
    uptime_s: float
    garbage_blocks: int
    nodes: tuple[DatanodeInfo, ...]
    repair: RepairProgress = RepairProgress()
    metadata: MetadataState = MetadataState()
    level: int = 1
    newest_level: int = 1


@dataclass(frozen=True, slots=True)
class DatanodeUpgrade:
    """What a datanode is able to do. `version` and `features` are empty where it has not joined since the namenode
    started, or is of a build that tells nothing. `obstacle`: why it keeps the level from being raised, or ""."""

    id: str
    url: str
    state: str
    version: str
    features: tuple[str, ...]
    obstacle: str


@dataclass(frozen=True, slots=True)
class MountUpgrade:
    """What a mount is able to do, one that is connected or may come back; the rest as in `DatanodeUpgrade`."""

    name: str
    connected: bool
    version: str
    features: tuple[str, ...]
    obstacle: str


@dataclass(frozen=True, slots=True)
class UpgradeStatus:
    """Where an upgrade stands. `version`, `features` and `newest_level` are the namenode's. `possible`: the cluster's
    `level` can be raised to `newest_level` now."""

    level: int
    newest_level: int
    version: str
    features: tuple[str, ...]
    possible: bool
    nodes: tuple[DatanodeUpgrade, ...]
    mounts: tuple[MountUpgrade, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """`kind` is `missing copies`, `lost` (no copy on any live datanode) or `metadata` (a broken invariant)."""

    kind: str
    path: str
    detail: str
    block: str
    copies: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Health:
    """`problem_count` counts all problems, `problems` holds the first of them."""

    healthy: bool
    inodes: int
    blocks: int
    problem_count: int
    problems: tuple[Problem, ...]


def info_of_attr(attr: Attr) -> FileInfo:
    """From the headers of an answer to HEAD."""
    return FileInfo(
        type=attr.type.name.lower(),
        mode=attr.mode,
        uid=attr.uid,
        gid=attr.gid,
        nlink=attr.nlink,
        size=attr.size,
        allocated=attr.allocated,
        atime_ns=attr.atime_ns,
        mtime_ns=attr.mtime_ns,
        ctime_ns=attr.ctime_ns,
        ino=attr.ino,
        version=attr.version,
        etag=format_etag(attr) if attr.type is FileType.FILE else "",
        target=os.fsdecode(attr.target),
        rdev=attr.rdev,
        replication=attributes.format_replication(attr.replication),
    )


def info_of_body(body: messages.AttrBody) -> FileInfo:
    """From the JSON of an answer."""
    return FileInfo(
        type=body.type,
        mode=int(body.mode, 8),
        uid=body.uid,
        gid=body.gid,
        nlink=body.nlink,
        size=body.size,
        allocated=body.allocated,
        atime_ns=body.atime_ns,
        mtime_ns=body.mtime_ns,
        ctime_ns=body.ctime_ns,
        ino=body.ino,
        version=body.version,
        etag=body.etag,
        target=os.fsdecode(decode_component(body.target_bytes)) if body.target_bytes else body.target,
        rdev=body.rdev,
        replication=body.replication,
        replicas=body.replicas,
    )


def usage_of_body(body: messages.DfBody) -> DiskUsage:
    return DiskUsage(**_fields(body, DiskUsage))


def status_of_body(body: messages.ClusterBody) -> ClusterStatus:
    composed = {
        "nodes": tuple(DatanodeInfo(**_fields(node, DatanodeInfo)) for node in body.nodes),
        "repair": RepairProgress(**_fields(body.repair, RepairProgress)),
        "metadata": MetadataState(**_fields(body.metadata, MetadataState)),
    }
    return ClusterStatus(**(_fields(body, ClusterStatus) | composed))


def upgrade_of_body(body: messages.UpgradeBody) -> UpgradeStatus:
    composed = {
        "features": tuple(body.features),
        "nodes": tuple(_peer(node, DatanodeUpgrade) for node in body.nodes),
        "mounts": tuple(_peer(mount, MountUpgrade) for mount in body.mounts),
    }
    return UpgradeStatus(**(_fields(body, UpgradeStatus) | composed))


def _peer(body: messages.UpgradeNodeBody | messages.UpgradeMountBody, kind: type[T]) -> T:
    return kind(**(_fields(body, kind) | {"features": tuple(body.features)}))


def _fields(body: msgspec.Struct, kind: type[Any]) -> dict[str, Any]:
    """The values of the message's fields that `kind` has too."""
    return {name: getattr(body, name) for name in kind.__slots__}


def health_of_body(body: messages.FsckBody) -> Health:
    problems = tuple(Problem(**_fields(problem, Problem)) for problem in body.problems)
    return Health(body.healthy, body.inodes, body.blocks, body.problem_count, problems)
