"""JSON bodies of the HTTP interface. Field names are the interface: docs/protocol.md lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from dfslib.errors import DfsError, InvalidArgument, from_code
from dfslib.model import Extent
from dfslib.wire.features import OLDEST_LEVEL, FeatureNames, LevelNumber, Version, check_sorted

T = TypeVar("T")

Incarnation = Annotated[str, Meta(max_length=64)]
"""The name of one process of a datanode; empty of one of a build that has none."""


class ErrorBody(msgspec.Struct, frozen=True):
    error: str
    message: str
    path: str = ""


class AttrBody(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A file's attributes. `mode` is octal, as in `0644`; `replication` is `default`, `all` or a number.

    `replicas`, in the answer to a write, is the smallest number of datanodes that hold a block of it.
    `path_bytes` and `target_bytes` are percent-encoded, and there only where the text beside them is not
    exact because the bytes are no UTF-8.
    """

    path: str = ""
    path_bytes: str = ""
    name: str = ""
    name_bytes: str = ""
    ino: int
    type: str
    mode: str
    uid: int
    gid: int
    nlink: int
    size: int
    allocated: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    version: int
    rdev: int = 0
    target: str = ""
    target_bytes: str = ""
    replication: str
    etag: str = ""
    replicas: int | None = None


class ListingBody(msgspec.Struct, frozen=True):
    """Entries of a directory, sorted by the bytes of their names. `more`: ask again after the last one."""

    entries: list[AttrBody]
    more: bool


class XattrsBody(msgspec.Struct, frozen=True):
    """Extended attributes; the values are base64."""

    xattrs: dict[str, str]


class NodeBody(msgspec.Struct, frozen=True):
    """A datanode. `last_seen` is in seconds since the epoch; sizes are in bytes.

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


class RepairBody(msgspec.Struct, frozen=True):
    """Repair of copies: blocks that lack some and blocks that are lost at the last look; copies that wait,
    run, and are done since the namenode started."""

    short: int = 0
    lost: int = 0
    waiting: int = 0
    running: int = 0
    done: int = 0


class MetadataBody(msgspec.Struct, frozen=True):
    """The namenode's metadata and its copies on the datanodes. Times are in seconds since the epoch.

    `state`: `open`, or `waiting` (until datanodes have shown that the metadata is the newest, or whether there is a
    cluster to be restored), or `restoring`, or `checking` (the store is checked before it is opened); `detail` says
    what it waits for, or which datanodes an open one refuses. `copied_until`: all changes up to then are on datanodes.
    `restored_until`: the metadata was restored, or opened by force, and changes made elsewhere after that moment are
    missing. `held`: nothing is deleted from the datanodes until the operator releases it. `checked`: when all of the
    store was last found to be right; `checking`: it is checked now. `damage`: why the last store that was set aside
    was, and where it is.
    """

    state: str = "open"
    detail: str = ""
    copied_until: float | None = None
    restored_until: float | None = None
    held: bool = False
    checked: float | None = None
    checking: bool = False
    damage: str = ""


class ClusterBody(msgspec.Struct, frozen=True):
    """`level`: of the cluster (features.py); `newest_level`: the one that an operator can raise it to now."""

    cluster_id: str
    version: str
    protocol: int
    replication: str
    min_replicas: int
    uptime_s: float
    garbage_blocks: int
    nodes: list[NodeBody]
    repair: RepairBody = RepairBody()
    metadata: MetadataBody = MetadataBody()
    level: int = OLDEST_LEVEL
    newest_level: int = OLDEST_LEVEL


class DfBody(msgspec.Struct, frozen=True):
    """`capacity`, `used` and `free` add up the live datanodes' volumes; `available` is what files can
    still take with the cluster's replication; `bytes` is what all files hold, each counted once."""

    capacity: int
    used: int
    free: int
    available: int
    bytes: int
    files: int
    directories: int
    nodes: int


class ProblemBody(msgspec.Struct, frozen=True):
    """`kind` is `missing copies`, `lost` (no copy on any live datanode) or `metadata` (a broken invariant)."""

    kind: str
    path: str
    detail: str
    block: str = ""
    copies: int = 0
    wanted: int = 0


class FsckBody(msgspec.Struct, frozen=True):
    """`problem_count` counts all problems, `problems` holds the first of them."""

    healthy: bool
    inodes: int
    blocks: int
    problem_count: int
    problems: list[ProblemBody]


class JoinRequest(msgspec.Struct, frozen=True):
    """`url` is empty where the namenode is to use the address it sees, with `port`.

    `epoch`: of the cluster as the datanode last met it; a namenode of an earlier one is out of date. `protocol`: the
    cluster's level as the datanode last met it, 1 where it has met none: so a namenode of a build that does not know
    that level turns it away, before it restores anything from its copies. `position`: the newest one of the metadata
    that it was ever brought; empty where it does not know.

    `incarnation`: random, of this process and no other, or empty where the datanode has none. `starts`: how many
    processes have joined with this volume, this one included. `ancestors`: the incarnations of those before, the
    latest one last, as far as the volume remembers them.
    """

    node_id: str
    cluster_id: str
    protocol: LevelNumber
    port: int
    url: str
    public_url: str
    capacity: int
    used: int
    free: int
    blocks: int
    epoch: int = 0
    features: FeatureNames = []
    version: Version = ""
    position: str = ""
    incarnation: Incarnation = ""
    starts: Annotated[int, Meta(ge=0)] = 0
    ancestors: Annotated[list[Incarnation], Meta(max_length=1000)] = []

    def __post_init__(self) -> None:
        check_sorted(self.features)


class JoinAnswer(msgspec.Struct, frozen=True):
    """The datanode reports its blocks next, in pages; then it heartbeats.

    `epoch` counts how often the cluster's metadata was restored, `level` is the cluster's (features.py); the datanode
    remembers both durably. `features`: the namenode's.
    """

    cluster_id: str
    url: str
    epoch: int = 0
    level: LevelNumber = OLDEST_LEVEL
    features: FeatureNames = []

    def __post_init__(self) -> None:
        check_sorted(self.features)


class ReportRequest(msgspec.Struct, frozen=True):
    """The blocks a datanode holds whose ids are in (after, last block of the page], sorted.

    `last`: there are none after these. `incarnation`: with which it joined.
    """

    node_id: str
    after: int
    blocks: list[int]
    last: bool
    incarnation: Incarnation = ""


class ReportAnswer(msgspec.Struct, frozen=True):
    """`delete`: blocks of this page that no file uses."""

    delete: list[int]


class HeartbeatRequest(msgspec.Struct, frozen=True):
    """`free` already leaves out what the datanode reserves. `leaving`: it stops now. `ready`: an answer has said so.

    `copied`: blocks that it was told to copy and now has durably. `failed`: those it could not copy.
    `bad`: blocks that it had and found damaged. Each is told until an answer has come. `position` as in the join.
    `incarnation`: with which it joined.
    """

    node_id: str
    capacity: int
    used: int
    free: int
    blocks: int
    leaving: bool = False
    copied: list[int] = []
    failed: list[int] = []
    bad: list[int] = []
    ready: bool = False
    position: str = ""
    incarnation: Incarnation = ""


class CopyOrder(msgspec.Struct, frozen=True):
    """Get this block from one of these peers, and keep it."""

    block: int
    size: int
    urls: list[str]


class HeartbeatAnswer(msgspec.Struct, frozen=True):
    """What the datanode is to do: blocks to delete, blocks to copy from peers, and (`report`) report all again.

    `whole`: nobody is away and no copies are to be made; a datanode that was told so once is ready. `level`: of the
    cluster, which may have risen since the datanode joined.
    """

    delete: list[int]
    copy: list[CopyOrder] = []
    report: bool = False
    whole: bool = True
    level: LevelNumber = OLDEST_LEVEL


class UpgradeNodeBody(msgspec.Struct, frozen=True):
    """A datanode. `version` and `features` as it told when it joined, empty where it has not since the namenode
    started, or is of a build that tells nothing. `obstacle`: why the cluster's level cannot be raised, or ""."""

    id: str
    url: str
    state: str
    version: str
    features: list[str]
    obstacle: str


class UpgradeMountBody(msgspec.Struct, frozen=True):
    """A mount, connected or with a session that it may resume; the rest as in `UpgradeNodeBody`."""

    name: str
    connected: bool
    version: str
    features: list[str]
    obstacle: str


class UpgradeBody(msgspec.Struct, frozen=True):
    """Where an upgrade stands. `version`, `features`, `newest_level`: of this namenode. `possible`: the level can be
    raised to `newest_level` now."""

    level: int
    newest_level: int
    version: str
    features: list[str]
    possible: bool
    nodes: list[UpgradeNodeBody]
    mounts: list[UpgradeMountBody]


class LayoutBody(msgspec.Struct, frozen=True):
    """Where a file's bytes lie. Gaps between extents are zeros."""

    ino: int
    version: int
    size: int
    mtime_ns: int
    extents: list[Extent]


class LocateBody(msgspec.Struct, frozen=True):
    """URLs of the datanodes that hold a block and can be asked."""

    urls: list[str]


class BlockBody(msgspec.Struct, frozen=True):
    """Answer to a PUT of a block: what is durably stored, as the datanode saw it."""

    block: str
    size: int
    crc32c: str


class GrantedBody(msgspec.Struct, frozen=True):
    """Answer to a PUT with a grant: the datanodes that have the block, those that were too slow, and those that
    could not take it."""

    block: str
    size: int
    crc32c: str
    nodes: list[str]
    slow: list[str]
    failed: list[str]


class MetadataFileBody(msgspec.Struct, frozen=True):
    """A file of the namenode's metadata on a datanode; `size` in bytes."""

    name: str
    size: int
    crc32c: str


class MetadataListBody(msgspec.Struct, frozen=True):
    """Sorted by name."""

    files: list[MetadataFileBody]


class HealthBody(msgspec.Struct, frozen=True):
    status: str


def encode(body: msgspec.Struct | Sequence[msgspec.Struct]) -> bytes:
    return msgspec.json.encode(body)


def decode(data: bytes, kind: type[T]) -> T:
    """Raises InvalidArgument where `data` is not such a message."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"not a {kind.__name__}: {error}") from None


def encode_error(error: DfsError) -> bytes:
    path = error.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    message = error.message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return encode(ErrorBody(error=error.code, message=message, path=path))


def decode_error(data: bytes, status: int, path: str = "") -> DfsError:
    """The error in an answer. One that is not ours (a proxy's page) is told by its status alone."""
    try:
        body = msgspec.json.decode(data, type=ErrorBody)
    except msgspec.MsgspecError:
        code = {404: "ENOENT", 502: "EUNAVAILABLE", 503: "EUNAVAILABLE", 504: "EUNAVAILABLE"}.get(status, "EIO")
        return from_code(code, f"HTTP status {status}", path)
    return from_code(body.error, body.message, path or body.path)
