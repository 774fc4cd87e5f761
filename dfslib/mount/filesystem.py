"""The port between the kernel's bindings and the file system: inodes and handles, no FUSE and no paths.

A binding translates requests of the kernel into these calls and their results into answers; `vfs.VFS` is
the implementation. Every call raises DfsError, whose errno the kernel gets, and nothing else on purpose.
Calls run concurrently on one event loop. One that is cancelled (the program was interrupted) leaves either
all or nothing of its effect, and the kernel is told EINTR.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, NewType, Protocol

from dfslib.errors import DfsError
from dfslib.model import Attr, InodeId

Handle = NewType("Handle", int)
"""Names an open file or directory in this process."""
LockOwner = NewType("LockOwner", int)
"""The kernel's opaque name for who holds a lock: a process' table of files (POSIX), or an open file (flock, OFD)."""
Buffer = bytes | bytearray | memoryview
ReadDone = Callable[[Buffer | DfsError | None], None]
"""Is told what became of a read: see `FileSystem.begin_read`."""


KERNEL_PID: Final = -1


class Caller(NamedTuple):
    """Who asks. `pid`: of the thread, 0 where it is in a PID namespace that cannot be seen from here, KERNEL_PID where
    the kernel itself writes what programs wrote into memory."""

    uid: int
    gid: int
    pid: int


class AttrUpdate(NamedTuple):
    """What setattr is to change; None leaves as it is. `now_*` takes the time of the change."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    now_atime: bool = False
    now_mtime: bool = False
    kill_privileges: bool = False
    """Also clear setuid, and setgid where the group may execute (what a write or chown by others does)."""


class Opened(NamedTuple):
    """`keep_cache`: what the kernel has of the content is still right. `direct`: it must keep none."""

    handle: Handle
    keep_cache: bool = False
    direct: bool = False


class DirectoryEntry(NamedTuple):
    """An entry of a listing. `cookie`: give it to `readdir` to go on behind this entry. `.` and `..` are
    there, first, with attributes of which only ino and type need be right."""

    name: bytes
    attr: Attr
    cookie: int


class Space(NamedTuple):
    """Of the whole cluster, as statfs(2) has it: sizes in bytes, already divided by the number of copies."""

    total: int
    free: int
    available: int
    files: int
    free_files: int


class LockKind(enum.IntEnum):
    READ = 0
    WRITE = 1
    UNLOCK = 2


class Lock(NamedTuple):
    """A POSIX lock on bytes [start, end]; `end` is the last byte, (1 << 63) - 1 for all to come. A flock
    covers everything. `pid` is who holds it, for F_GETLK."""

    kind: LockKind
    start: int
    end: int
    pid: int


class Notifier(Protocol):
    """How the file system reaches into the kernel's caches. Safe to call from the event loop: what blocks
    happens elsewhere, in the order of the calls."""

    def invalidate_inode(self, ino: InodeId, *, attributes_only: bool = False) -> Awaitable[None]:
        """Drop an inode's attributes and pages; done when the kernel has. Unknown inodes are fine."""
        ...

    def invalidate_entry(self, parent: InodeId, name: bytes) -> Awaitable[None]:
        """Drop a name; done when the kernel has. Unknown names are fine."""
        ...

    def invalidate_all(self) -> Awaitable[None]:
        """Drop the attributes and pages of every inode that the kernel knows, and every name, if it can be done."""
        ...


class FileSystem(Protocol):
    """Names are bytes without '/' and NUL. `mode` has permission bits only (07777), umask already applied."""

    def attach(self, notifier: Notifier) -> None:
        """Called once, before the first request."""
        ...

    def cache_s(self) -> float:
        """For how long the kernel may keep attributes and names that it is given now, in seconds. To be asked, and
        the answer to be written, in the step of the event loop in which a call has returned."""
        ...

    async def lookup(self, caller: Caller, parent: InodeId, name: bytes) -> Attr: ...
    def forget(self, ino: InodeId) -> None:
        """The kernel knows this inode no more: its last reference went."""
        ...

    async def getattr(self, caller: Caller, ino: InodeId, handle: Handle | None) -> Attr: ...
    async def setattr(self, caller: Caller, ino: InodeId, update: AttrUpdate, handle: Handle | None) -> Attr: ...
    async def readlink(self, caller: Caller, ino: InodeId) -> bytes: ...
    async def mknod(self, caller: Caller, parent: InodeId, name: bytes, mode: int, rdev: int) -> Attr:
        """`mode` with the type bits (S_IFREG, S_IFIFO, ...) as mknod(2) has them."""
        ...

    async def mkdir(self, caller: Caller, parent: InodeId, name: bytes, mode: int) -> Attr: ...
    async def symlink(self, caller: Caller, parent: InodeId, name: bytes, target: bytes) -> Attr: ...
    async def link(self, caller: Caller, ino: InodeId, parent: InodeId, name: bytes) -> Attr: ...
    async def unlink(self, caller: Caller, parent: InodeId, name: bytes) -> None: ...
    async def rmdir(self, caller: Caller, parent: InodeId, name: bytes) -> None: ...
    async def rename(
        self, caller: Caller, parent: InodeId, name: bytes, new_parent: InodeId, new_name: bytes, flags: int
    ) -> None:
        """`flags`: RENAME_NOREPLACE (1), RENAME_EXCHANGE (2); others raise InvalidArgument."""
        ...

    async def create(
        self, caller: Caller, parent: InodeId, name: bytes, mode: int, flags: int, *, kill_privileges: bool = False
    ) -> tuple[Attr, Opened]:
        """open(2) with O_CREAT of a name that the kernel does not know; with O_EXCL it must be new. `kill_privileges`:
        as `open`."""
        ...

    async def open(
        self, caller: Caller, ino: InodeId, flags: int, *, kill_privileges: bool = False
    ) -> Opened:
        """`flags` as open(2) has them; O_TRUNC cuts the file to nothing in the same step, and, with `kill_privileges`,
        clears setuid and setgid. Raises Stale where
        the name that led here may lead elsewhere by now: the kernel then looks it up again, and comes again."""
        ...

    async def read(self, handle: Handle, offset: int, size: int) -> Sequence[Buffer]:
        """Up to `size` bytes in pieces, fewer only at the end of the file. Holes are zeros."""
        ...

    def begin_read(self, handle: Handle, offset: int, size: int, done: ReadDone) -> bool:
        """`read`, without a task, where one piece of one block has it all. False where it is no such read, and nothing
        is begun; else `done` is called once, perhaps before this returns: with the bytes, with what went wrong, or
        with None where that is for `read` to find out."""
        ...

    async def write(
        self,
        caller: Caller,
        handle: Handle,
        offset: int,
        data: Buffer,
        *,
        append: bool,
        kill_privileges: bool = False,
    ) -> int:
        """The count of bytes taken, all of them. `data` belongs to the callee from now on. `append`: O_APPEND is set at
        the moment (fcntl(2) may have changed it since the open), and the offset is the kernel's guess."""
        ...

    async def flush(self, handle: Handle, owner: LockOwner) -> None:
        """A descriptor was closed: give the content to the datanodes, release the owner's POSIX locks.
        Raises what a write that was taken before came to."""
        ...

    async def fsync(self, handle: Handle, *, data_only: bool) -> None:
        """Everything durable on the datanodes. Raises what a write that was taken before came to."""
        ...

    async def release(self, handle: Handle) -> None:
        """The last descriptor of an open file is closed. What was locked through it and is locked still goes."""
        ...

    async def fallocate(self, caller: Caller, handle: Handle, mode: int, offset: int, length: int) -> None:
        """fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE; others raise NotSupported."""
        ...

    async def seek(self, handle: Handle, offset: int, whence: int) -> int:
        """lseek(2) with SEEK_DATA or SEEK_HOLE. Raises NoSuchOffset."""
        ...

    async def copy_range(
        self, caller: Caller, source: Handle, source_offset: int, target: Handle, target_offset: int, length: int
    ) -> int:
        """copy_file_range(2); the count of bytes copied."""
        ...

    async def opendir(self, caller: Caller, ino: InodeId) -> Opened: ...
    async def readdir(self, caller: Caller, handle: Handle, cookie: int) -> Sequence[DirectoryEntry]:
        """Some entries behind `cookie` (0: from the beginning); none at the end. What was there all the time
        comes exactly once."""
        ...

    async def releasedir(self, handle: Handle) -> None: ...
    async def fsyncdir(self, handle: Handle) -> None: ...
    async def statfs(self) -> Space: ...
    async def getxattr(self, caller: Caller, ino: InodeId, name: bytes) -> bytes:
        """Raises NoAttribute."""
        ...

    async def setxattr(self, caller: Caller, ino: InodeId, name: bytes, value: bytes, flags: int) -> None:
        """`flags`: XATTR_CREATE (1), XATTR_REPLACE (2)."""
        ...

    async def listxattr(self, caller: Caller, ino: InodeId) -> Sequence[bytes]: ...
    async def removexattr(self, caller: Caller, ino: InodeId, name: bytes) -> None: ...
    async def get_lock(self, handle: Handle, owner: LockOwner, lock: Lock) -> Lock | None:
        """A lock that is in the way of this one, if there is any (F_GETLK)."""
        ...

    async def set_lock(self, handle: Handle, owner: LockOwner, lock: Lock, *, flock: bool, wait: bool) -> None:
        """Raises WouldBlock where it is held and not to be waited for, Deadlock."""
        ...
