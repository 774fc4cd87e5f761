"""Messages of a mount's session (`GET /session`, a WebSocket): msgpack, one message a binary frame.

    mount                                              namenode
      │ Hello ─────────────────────────────────────────► │   the first frame; a session to resume, or ""
      │ ◄──────────────────────────────────────── Welcome│   or Failure, and the connection ends
      │ Request(seq, operation) ───────────────────────► │   many at a time
      │ ◄──────────────────────── Answer / Failure (seq) │   in any order
      │ ◄──────────────────────────────── Invalidate ... │   pushes, in order with the answers

Order is a promise: what was committed before an answer was made, by anybody, was pushed before that answer is
sent. So an answer is never newer than the invalidations that came before it.

A session outlives its connection for `Welcome.grace_s`. A mount that resumes it in time sends the requests again
that it has no answer to, with their numbers: each is done once (`Request.seq` with the session's id names it).
A namenode that was started since (`Welcome.restarted`) knows the session, but not what it has open and locked: the
mount first opens its files and claims its locks (`SetLock.reclaim`) again; its first request of another kind, which
may be an empty Forget, says that this was all. After the grace time `Hello.session` is refused with Stale: the mount
begins a new session and does the same there, and others may have had its locks meanwhile. Of what is written, that
under a lost lock is refused (`Commit.generation`). A mount without a connection is told of no changes: it drops every
cache.

Arrays on the wire; they evolve by appending fields with defaults.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from dfslib.model import Attr, BlockId, BlockRef, Entry, Extent, FileType, InodeId, NodeId
from dfslib.wire.features import OLDEST_LEVEL, FeatureNames, LevelNumber, Version, check_sorted

SESSION_PROTOCOL: Final = 2
"""Raised when a mount of the version before could not work with this one."""
FRAME_MAX: Final = 4 << 20
INLINE_MAX: Final = 128 << 10
"""Bytes that `Write` may carry itself; more goes to the datanodes first and is then committed."""
RequestNames = Annotated[list[Annotated[str, msgspec.Meta(max_length=128)]], msgspec.Meta(max_length=64)]
"""Each `session:seq`."""
LOCK_END: Final = (1 << 63) - 1
"""Last byte of a lock that reaches to the end of the file, whatever its size."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """`name`: of the mount, for operators: `host:/mnt/point`. `session`: to resume, else "". `features`, `version`: of
    the mount (features.py)."""

    protocol: int
    name: str
    session: str = ""
    features: FeatureNames = []
    version: Version = ""

    def __post_init__(self) -> None:
        check_sorted(self.features)


class Node(msgspec.Struct, frozen=True, array_like=True):
    """A datanode that can be read from: where clients reach it."""

    id: NodeId
    public_url: str


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """`restarted`: the namenode knows the session, but not what is open and locked: it has been started since. The
    mount opens and claims its locks again, before all else. `level`: of the cluster; `features`: the namenode's
    (features.py)."""

    session: str
    cluster_id: str
    grace_s: float
    nodes: list[Node]
    restarted: bool = False
    level: LevelNumber = OLDEST_LEVEL
    features: FeatureNames = []

    def __post_init__(self) -> None:
        check_sorted(self.features)


# ---------------------------------------------------------------------------------------------- operations


class Lookup(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """-> Attributes. The session has the name and the inode cached from then on."""

    parent: InodeId
    name: bytes


class GetAttr(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """-> Attributes"""

    ino: InodeId


class SetAttr(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """-> Attributes. None leaves as it is. `kill_privileges` clears setuid, and setgid of what its group may
    execute. `generation`: as in `Commit`, where there is a `size`."""

    ino: InodeId
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    kill_privileges: bool = False
    generation: int = 0


class ReadDirectory(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """-> Entries: up to `limit` behind the name `after`. All of them are cached from then on."""

    ino: InodeId
    after: bytes
    limit: int


class Create(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """-> Attributes (`created` tells whether it is new). `exclusive`: Exists where the name is taken, else the
    file that has it; only regular files can be not exclusive. `open`: as `Open` does, in the same step."""

    parent: InodeId
    name: bytes
    kind: FileType
    mode: int
    uid: int
    gid: int
    rdev: int = 0
    target: bytes = b""
    exclusive: bool = True
    open: bool = False


class Link(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """-> Attributes of the inode"""

    ino: InodeId
    parent: InodeId
    name: bytes


class Unlink(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """-> Done"""

    parent: InodeId
    name: bytes


class Rmdir(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """-> Done"""

    parent: InodeId
    name: bytes


class Rename(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """-> Done"""

    parent: InodeId
    name: bytes
    new_parent: InodeId
    new_name: bytes
    noreplace: bool = False
    exchange: bool = False


class Open(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """-> Attributes with `extents` where they are few. The inode is kept, even without a name, until as many
    `Close`. NotFound where it is gone: the name that led here leads elsewhere."""

    ino: InodeId


class Close(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """-> Done. `count` opens of the inode have ended."""

    ino: InodeId
    count: int = 1


class GetLayout(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """-> Layout: the extents that overlap bytes [start, end)"""

    ino: InodeId
    start: int
    end: int


class Allocate(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """-> Grants: so many new blocks for this file, held for the session until they are committed or given up."""

    ino: InodeId
    count: int = 1


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """-> Attributes, and `offset` where the first byte went. Points the file at blocks that were written.

    Extents' offsets are the file's; with `append` they count from the end of the file as it then is. `size`: cut
    or lengthen the file to this first. `mtime_ns`: when it was written; the ctime is the same. BlockGone where a
    block is not held for this session: send its bytes again. `generation`: of the locks that programs of the mount
    have on the file (`Done.generation`), 0 without any; LockLost where they have been lost. `repeats`: the requests
    (`session:seq`) of sessions that were lost since, of which this is a repetition: where one of them was done, this is
    answered alike, and nothing is done. `version`: of the file before them, where they may be too old for the namenode
    to know; ConditionFailed, and nothing done, where it has another one by now.
    """

    ino: InodeId
    extents: list[Extent]
    blocks: list[BlockRef]
    append: bool = False
    mtime_ns: int | None = None
    kill_privileges: bool = False
    size: int | None = None
    generation: int = 0
    repeats: RequestNames = []
    version: int = 0


class Piece(msgspec.Struct, frozen=True, array_like=True):
    offset: int
    data: bytes


class Write(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """-> Attributes, and `offset`, as `Commit`: but the bytes are here, at most INLINE_MAX of them together, and
    the namenode brings them to the datanodes. `sync`: on their disks before the answer, not only in their memory."""

    ino: InodeId
    pieces: list[Piece]
    append: bool = False
    sync: bool = False
    mtime_ns: int | None = None
    kill_privileges: bool = False
    generation: int = 0
    repeats: RequestNames = []
    version: int = 0


class Abandon(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """-> Done. These blocks are not going to be committed."""

    blocks: list[BlockId]


class Sync(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """-> Done, when all that was committed of the inode is on disks, not only in memory"""

    ino: InodeId


class GetXattr(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """-> Value"""

    ino: InodeId
    name: bytes


class SetXattr(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """-> Done"""

    ino: InodeId
    name: bytes
    value: bytes
    create: bool = False
    replace: bool = False


class ListXattrs(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """-> Names"""

    ino: InodeId


class RemoveXattr(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """-> Done"""

    ino: InodeId
    name: bytes


class Punch(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """-> Attributes. Bytes [start, end) become a hole; the size stays. `generation`: as in `Commit`."""

    ino: InodeId
    start: int
    end: int
    generation: int = 0


class CopyRange(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """-> Attributes of the target. The two share the blocks; no data moves. What is committed is copied.
    `generation`: as in `Commit`, of the target."""

    source: InodeId
    source_offset: int
    target: InodeId
    target_offset: int
    length: int
    generation: int = 0


class GetLock(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """-> LockAnswer: a lock that is in the way of this one, or None"""

    ino: InodeId
    owner: int
    write: bool
    start: int
    end: int


class SetLock(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """-> Done with a `generation`, at once or, with `wait`, when it is granted; WouldBlock, Deadlock. A flock
    (`flock`) and a POSIX lock never meet. `owner` is unique in the session. `kind`: 0 read, 1 write, 2 unlock. `end` is
    the last byte. `reclaim`: it was held before, in this `generation`, and the namenode has been started since or the
    session has been lost; LockLost where somebody may have had it meanwhile."""

    ino: InodeId
    owner: int
    kind: int
    start: int
    end: int
    pid: int = 0
    flock: bool = False
    wait: bool = False
    reclaim: bool = False
    generation: int = 0


class CancelLock(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """-> Done. Stop waiting in request `seq`, which then answers WouldBlock unless it was granted already."""

    seq: int


class GetSpace(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """-> SpaceAnswer"""


class Forget(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """-> Done. The session has nothing of these inodes cached any more."""

    inodes: list[InodeId]


class Goodbye(msgspec.Struct, frozen=True, array_like=True, tag=29):
    """-> Done. The session ends now: locks are released, what is open without a name goes."""


class NoteAccess(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """-> Done. Files were read last at these times, (inode, nanoseconds) each; ctimes stay."""

    times: list[tuple[InodeId, int]]


class ReadDeferred(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """-> Value: the bytes of a block that is on no datanode yet. NotFound where it is by now: the layout is an old
    one."""

    block: BlockId


Operation = (
    Lookup | GetAttr | SetAttr | ReadDirectory | Create | Link | Unlink | Rmdir | Rename | Open | Close | GetLayout
    | Allocate | Commit | Write | Abandon | Sync | GetXattr | SetXattr | ListXattrs | RemoveXattr | Punch
    | CopyRange | GetLock | SetLock | CancelLock | GetSpace | Forget | Goodbye | NoteAccess
    | ReadDeferred
)  # fmt: skip


class Request(msgspec.Struct, frozen=True, array_like=True):
    """`seq` grows; `done_below`: the mount has the answers to all requests before this one, so that the namenode
    may forget them."""

    seq: int
    operation: Operation
    done_below: int = 0


# ------------------------------------------------------------------------------------------------- results


class Done(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """`directories`: those whose entries were changed, as they are then. `generation`, after `SetLock`: of the locks
    that the session then has on the inode, 0 without any."""

    directories: list[Attr] = []
    generation: int = 0


class Attributes(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """`extents`: all of the file's, with `holders` of their blocks, where they were asked for and are few.
    `directories`: those whose entries were changed, as they are then. `deferred`: as in `Layout`. `synced`: what was
    written is on disk, even if that was not asked for."""

    attr: Attr
    created: bool = False
    offset: int = 0
    extents: list[Extent] | None = None
    holders: dict[BlockId, list[NodeId]] = {}
    directories: list[Attr] = []
    deferred: dict[BlockId, bytes] = {}
    synced: bool = False


class Entries(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Sorted by name. `more`: ask again after the last one."""

    entries: list[Entry]
    more: bool


class Layout(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Of the file as it is in this `version`. What lies between extents is zeros. `deferred`: blocks that no
    datanode has yet, with their bytes, b"" where ReadDeferred is to be asked for them."""

    version: int
    size: int
    extents: list[Extent]
    holders: dict[BlockId, list[NodeId]]
    deferred: dict[BlockId, bytes] = {}


class Target(msgspec.Struct, frozen=True, array_like=True):
    """A datanode that is to hold a block, and where other datanodes reach it."""

    node: NodeId
    url: str


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """A new block: `PUT /blocks/ID` with this in X-DFS-Grant, on any datanode, stores it on the targets.
    `required`: copies without which the write does not count."""

    block: BlockId
    targets: list[Target]
    required: int


class Grants(msgspec.Struct, frozen=True, array_like=True, tag=5):
    grants: list[Grant]


class Value(msgspec.Struct, frozen=True, array_like=True, tag=6):
    value: bytes


class Names(msgspec.Struct, frozen=True, array_like=True, tag=7):
    names: list[bytes]


class LockAnswer(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """`held` False: nothing is in the way."""

    held: bool
    write: bool = False
    start: int = 0
    end: int = 0
    pid: int = 0


class SpaceAnswer(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Bytes, divided by the number of copies."""

    total: int
    available: int
    files: int


Result = Done | Attributes | Entries | Layout | Grants | Value | Names | LockAnswer | SpaceAnswer

# ------------------------------------------------------------------------------------------ namenode's frames


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=1):
    seq: int
    result: Result


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """`error` is a code of errors.py. `seq` is -1 for the connection as a whole."""

    seq: int
    error: str
    message: str = ""


class Invalidate(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Others changed what this session has cached: `attributes` of inodes, their `contents` (and attributes), and
    `names` (parent, name). It has the inodes' attributes and the names cached no more."""

    attributes: list[InodeId]
    contents: list[InodeId]
    names: list[tuple[InodeId, bytes]]


class Nodes(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The datanodes that can be read from have changed to these."""

    nodes: list[Node]


class LevelRaised(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The cluster has this level from now on. Not sent to mounts that do not know of levels: there are none by then."""

    level: LevelNumber


FromNamenode = Welcome | Answer | Failure | Invalidate | Nodes | LevelRaised

encode: Final = msgspec.msgpack.Encoder().encode
decode_hello: Final = msgspec.msgpack.Decoder(Hello).decode
decode_request: Final = msgspec.msgpack.Decoder(Request).decode
decode_from_namenode: Final = msgspec.msgpack.Decoder(FromNamenode).decode
