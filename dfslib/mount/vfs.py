"""The file system of a mount: what `filesystem.FileSystem` promises, over a session with the namenode.

No FUSE and no paths here. Permissions are the kernel's to check (`default_permissions`), with attributes that are
kept right by the namenode's pushes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from dfslib.errors import (
    BadHandle,
    InvalidArgument,
    LockLost,
    NameTooLong,
    NotFound,
    Stale,
    Unavailable,
)
from dfslib.model import NAME_MAX, Attr, Entry, FileType, InodeId, clamped_time
from dfslib.mount.allocation import Allocation
from dfslib.mount.block_cache import BlockCache
from dfslib.mount.budget import Budget
from dfslib.mount.clock import Clock
from dfslib.mount.datanodes import Datanodes
from dfslib.mount.directories import Directories, OpenDirectory
from dfslib.mount.filesystem import (
    AttrUpdate,
    Buffer,
    Caller,
    DirectoryEntry,
    Handle,
    Lock,
    LockOwner,
    Notifier,
    Opened,
    ReadDone,
    Space,
)
from dfslib.mount.held_locks import Holder
from dfslib.mount.invalidations import Invalidations
from dfslib.mount.kernel_cache import CACHE_S, KernelCache
from dfslib.mount.locks import Locks
from dfslib.mount.open_files import OpenFiles
from dfslib.mount.reader import Reader
from dfslib.mount.retries import LOOK_S, OPEN_S, Found, Retries
from dfslib.mount.session import Call, Session
from dfslib.mount.writer import Outlets
from dfslib.mount.xattrs import Xattrs
from dfslib.runtime.logs import event
from dfslib.runtime.tasks import Tasks, run_forever
from dfslib.transfer.block_client import BlockClient
from dfslib.wire import session as wire

log = logging.getLogger("dfs.vfs")

_AGE_S: Final = 1.0
"""What was written is sent by then, so that others see a file grow."""
_TICK_S: Final = 0.5
_ACCESSES_S: Final = 5.0
"""Times of access are told so rarely: a transaction for each file that is read would be most of the namenode's work."""
_FORGET_AT: Final = 1000
_FINDS_MAX: Final = 1000
"""A name that is replaced between its lookup and the open behind it is looked up again: never so often."""
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_FREE_INODES: Final = 1 << 40
"""There is no bound on files but the namenode's disk."""
_TYPES: Final = {
    0: FileType.FILE,
    stat.S_IFREG: FileType.FILE,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFCHR: FileType.CHARACTER,
    stat.S_IFBLK: FileType.BLOCK,
    stat.S_IFSOCK: FileType.SOCKET,
}


class Options(NamedTuple):
    """`cache_bytes`: memory for what is to be written, up to half of it, and for what was read. `timeout_s`: how long a
    call waits for a namenode or datanodes that are away."""

    cache_bytes: int = 256 << 20
    timeout_s: float = 30.0


class VFS:
    """Implements `filesystem.FileSystem` and `session.Listener`. `name`: of the mount, for operators."""

    def __init__(self, url: str, name: str, options: Options, clock: Clock) -> None:
        self._clock = clock
        self._options = options
        self._tasks = Tasks()
        self._session = Session(url, name, self, options.timeout_s)
        self._invalidations = Invalidations()
        self._kernel = KernelCache(self._tasks, clock.monotonic_s)
        self._names = self._kernel.names
        self._client = BlockClient()
        self._datanodes = Datanodes(self._client, options.timeout_s, clock.monotonic_s)
        half = options.cache_bytes // 2
        self._cache = BlockCache(options.cache_bytes, self._datanodes.begin)
        reader = Reader(self._session, self._invalidations, self._cache, half)
        self._files = OpenFiles(self._session, reader, self._invalidations, self._kernel, self._tasks, clock)
        self._locks = Locks(self._session, self._files, self._tasks, options.timeout_s)
        self._files.use(
            Outlets(
                self._session,
                self._datanodes,
                Budget(half, options.timeout_s, self._files.seal, self._leave_to_reads),
                options.timeout_s,
                clock,
                self._files.committed,
                self._files.content_is_off,
                self._locks,
            )
        )
        self._allocation = Allocation(self._session, self._files, self._invalidations, self._kernel)
        self._retries = Retries(clock.monotonic_s, self._files.release)
        self._xattrs = Xattrs(self._session)
        self._directories: dict[Handle, OpenDirectory] = {}
        self._next_directory = 1
        self._forgotten: set[InodeId] = set()
        self._tell_accesses_s = 0.0
        self._parents = Directories(self._invalidations)
        self._changes = 0
        """Of anything, by anybody, as far as it is heard of."""

    def _leave_to_reads(self, written_bytes: int) -> None:
        self._cache.limit(self._options.cache_bytes - written_bytes)

    async def start(self) -> None:
        """Raises Unavailable without a namenode, InvalidArgument for one of another version."""
        await self._session.start()
        self._tasks.spawn(run_forever(self._tick, _TICK_S, "mount"), "mount tick")

    async def close(self) -> int:
        """Write what is to be written, end the session. How many files could not be written in time."""
        late = await self._files.flush_all()
        if late:
            log.error(event("files not written", count=late))
        if self._session.connected:
            await self._files.tell_accesses()
        await self._files.close()
        await self._session.close()
        await self._tasks.close()
        await self._cache.close()
        await self._client.close()
        return late

    async def _tick(self) -> None:
        self._retries.expire()
        self._files.seal(self._clock.monotonic_s() - _AGE_S)
        if self._session.connected and self._clock.monotonic_s() >= self._tell_accesses_s:
            self._tell_accesses_s = self._clock.monotonic_s() + _ACCESSES_S
            await self._files.tell_accesses()
        if self._session.connected:
            await self._tell_forgotten()

    # ------------------------------------------------------------------------------------ the session's words

    def invalidated(self, push: wire.Invalidate) -> None:
        self._changes += 1
        for ino in push.attributes:
            self._invalidations.changed_by_others(ino)
            self._files.others_changed(ino, content=False)
        for ino in push.contents:
            self._invalidations.changed_by_others(ino)
            self._files.others_changed(ino, content=True)
        for parent, name in push.names:
            self._invalidations.name_changed(parent, name)
        self._kernel.others_changed(push)

    def nodes_changed(self, nodes: list[wire.Node]) -> None:
        self._kernel.connected()
        self._datanodes.use(nodes)

    def disconnected(self) -> None:
        self._changes += 1
        self._parents.forget()
        self._invalidations.all_changed()
        self._files.everything_changed()
        self._kernel.drop_all()

    async def recover(self, call: Call, *, lost: bool) -> None:
        await self._files.recover(call)
        await self._locks.reclaim(call, lost=lost)
        await call(wire.Forget([]))  # the first request of another kind says that this was all

    # -------------------------------------------------------------------------------------- names, attributes

    def attach(self, notifier: Notifier) -> None:
        self._kernel.attach(notifier)

    def cache_s(self) -> float:
        return CACHE_S if self._session.connected else 0.0

    async def lookup(self, caller: Caller, parent: InodeId, name: bytes) -> Attr:
        _check_name(name)
        try:
            attr = await self._find(caller, parent, name)
        except NotFound:
            # the directory may have been moved away, and another one with the name be in its place
            if self._names.are_suspect(parent) and self._retries.refuse(caller, parent, LOOK_S):
                raise Stale from None
            self._retries.not_found(caller, parent)
            raise
        return attr

    async def _find(self, caller: Caller, parent: InodeId, name: bytes) -> Attr:
        """Where a name leads. For a caller that comes the second time the file is kept until then."""
        for _ in range(_FINDS_MAX):
            mark = self._invalidations.now()
            attr = await self._attributes(wire.Lookup(parent, name), mark)
            handle: Handle | None = None
            if attr.type is FileType.FILE and self._retries.is_expected(caller):
                try:
                    _, handle = await self._files.open(attr.ino, os.O_PATH, kill_privileges=False)
                except NotFound:
                    continue  # it has been replaced meanwhile
            self._retries.found(caller, Found(attr, handle))
            self._given(parent, name, attr.ino, mark)
            return attr
        raise Unavailable("a name leads elsewhere each time that it is looked up")

    def _given(self, parent: InodeId, name: bytes, ino: InodeId, mark: int) -> None:
        """The kernel is being given a name that was asked for after the mark was taken."""
        self._names.learn(parent, name, ino)
        if self._invalidations.name_has_changed(parent, name, mark):
            self._kernel.name_is_old(parent, name)

    def _is_stale(self, caller: Caller, ino: InodeId) -> bool:
        """Of an inode that is not there: whether its name may lead elsewhere by now, so that the kernel is to look
        it up again."""
        return self._names.are_suspect(ino) and self._retries.refuse(caller, ino, LOOK_S)

    async def _attributes(self, operation: wire.Operation, mark: int) -> Attr:
        answer = await self._session.call(operation)
        assert isinstance(answer, wire.Attributes)
        self._parents.learn(answer.directories, mark)
        return self._told(answer.attr, mark)

    def _told(self, attr: Attr, mark: int) -> Attr:
        """What the kernel is given for attributes that were asked for after the mark was taken."""
        self._forgotten.discard(attr.ino)
        self._files.learn(attr, mark)
        if self._invalidations.others_have_changed(attr.ino, mark):
            self._kernel.attributes_are_old(attr.ino)
        return self._files.present(attr)

    def forget(self, ino: InodeId) -> None:
        self._kernel.forget(ino)
        self._forgotten.add(ino)
        if len(self._forgotten) >= _FORGET_AT and self._session.connected:
            self._tasks.spawn(self._tell_forgotten(), "forget")

    async def _tell_forgotten(self) -> None:
        """From here on the namenode does not tell of changes of these: an answer on its way is old when it comes."""
        forgotten, self._forgotten = self._forgotten, set()
        for ino in forgotten:
            self._invalidations.changed_by_others(ino)
        if forgotten:
            await self._session.call(wire.Forget(list(forgotten)))

    async def getattr(self, caller: Caller, ino: InodeId, handle: Handle | None) -> Attr:
        known = self._files.known(ino) or self._parents.find(ino)
        if known is not None:
            return known
        try:
            return await self._attributes(wire.GetAttr(ino), self._invalidations.now())
        except NotFound:
            if any(directory.ino == ino for directory in self._directories.values()):
                return Attr(ino, FileType.DIRECTORY, 0o755, nlink=0)  # removed, and still open
            if (attr := self._retries.attr(caller, ino)) is not None:
                return replace(attr, nlink=0)  # it was there when the caller came by
            if self._is_stale(caller, ino):
                raise Stale from None
            raise

    async def setattr(self, caller: Caller, ino: InodeId, update: AttrUpdate, handle: Handle | None) -> Attr:
        now_ns = self._clock.wall_ns()
        atime_ns = now_ns if update.now_atime else update.atime_ns
        mtime_ns = now_ns if update.now_mtime else update.mtime_ns
        atime_ns = None if atime_ns is None else clamped_time(atime_ns)
        mtime_ns = None if mtime_ns is None else clamped_time(mtime_ns)
        if mtime_ns is not None and self._files.may_be_mapped(ino):
            # what was written into memory is to come before; the kernel writes it when it drops the pages
            self._kernel.drop_inode(ino)
            await self._kernel.has_been_told(ino)
        if update.size == 0:
            if handle is not None:
                self._files.usable(handle)
            await self._files.written(ino)  # nothing is too little of what was written to be cut to nothing
        elif update.size is not None or atime_ns is not None or mtime_ns is not None:
            await self._files.before_changing(ino, handle)  # a commit behind it would set the time again
        elif update.mode is not None and update.mode & (stat.S_ISUID | stat.S_ISGID):
            await self._files.written(ino)  # a commit behind it would clear them again
        if atime_ns is not None:
            self._files.access_is_set(ino)
        self._invalidations.changed(ino)
        mark = self._invalidations.now()
        self._changes += 1
        operation = wire.SetAttr(
            ino, update.mode, update.uid, update.gid, update.size, atime_ns, mtime_ns, update.kill_privileges
        )

        def under(generation: int) -> wire.SetAttr:
            return operation if update.size is None else replace(operation, generation=generation)

        try:
            answer = await self._files.change(ino, under)
        except NotFound:
            if handle is None and self._is_stale(caller, ino):
                raise Stale from None
            raise
        if update.size is not None:
            self._files.changed_here(answer.attr, mark)
        else:
            self._files.learn(answer.attr, mark)
        return self._files.present(answer.attr)

    async def readlink(self, caller: Caller, ino: InodeId) -> bytes:
        try:
            attr = await self.getattr(caller, ino, None)
        except NotFound:
            raise Stale from None  # a link is read by its name, which may lead to another one by now
        if attr.type is not FileType.SYMLINK:
            raise InvalidArgument("not a symbolic link")
        return attr.target

    async def _make(self, caller: Caller, parent: InodeId, name: bytes, new: _New) -> Attr:
        _check_name(name)
        mark = self._changing_names(parent)
        operation = wire.Create(parent, name, new.type, new.mode, caller.uid, caller.gid, new.rdev, new.target)
        attr = await self._attributes(operation, mark)
        self._given(parent, name, attr.ino, mark)
        return attr

    def _changing_names(self, *directories: InodeId) -> int:
        """To be called before and after. Gives the mark from which on what is told of them is fresh."""
        self._changes += 1
        self._files.names_changed_here()
        for directory in directories:
            self._invalidations.changed(directory)
        return self._invalidations.now()

    async def mknod(self, caller: Caller, parent: InodeId, name: bytes, mode: int, rdev: int) -> Attr:
        kind = _TYPES.get(stat.S_IFMT(mode))
        if kind is None:
            raise InvalidArgument("mknod makes files, FIFOs, devices and sockets")
        return await self._make(caller, parent, name, _New(kind, stat.S_IMODE(mode), rdev))

    async def mkdir(self, caller: Caller, parent: InodeId, name: bytes, mode: int) -> Attr:
        return await self._make(caller, parent, name, _New(FileType.DIRECTORY, stat.S_IMODE(mode)))

    async def symlink(self, caller: Caller, parent: InodeId, name: bytes, target: bytes) -> Attr:
        return await self._make(caller, parent, name, _New(FileType.SYMLINK, 0o777, target=target))

    async def link(self, caller: Caller, ino: InodeId, parent: InodeId, name: bytes) -> Attr:
        _check_name(name)
        mark = self._changing_names(parent)
        attr = await self._attributes(wire.Link(ino, parent, name), mark)
        self._given(parent, name, ino, mark)
        return attr

    async def unlink(self, caller: Caller, parent: InodeId, name: bytes) -> None:
        await self._change_names(wire.Unlink(parent, name), parent)
        self._names.remove(parent, name)

    async def rmdir(self, caller: Caller, parent: InodeId, name: bytes) -> None:
        await self._change_names(wire.Rmdir(parent, name), parent)
        self._names.remove(parent, name)

    async def rename(
        self, caller: Caller, parent: InodeId, name: bytes, new_parent: InodeId, new_name: bytes, flags: int
    ) -> None:
        if flags & ~(_RENAME_NOREPLACE | _RENAME_EXCHANGE) or flags == _RENAME_NOREPLACE | _RENAME_EXCHANGE:
            raise InvalidArgument("only one of RENAME_NOREPLACE and RENAME_EXCHANGE")
        _check_name(new_name)
        await self._files.before_renaming(parent, name)
        if flags & _RENAME_EXCHANGE:
            await self._files.before_renaming(new_parent, new_name)
        await self._change_names(
            wire.Rename(
                parent, name, new_parent, new_name, bool(flags & _RENAME_NOREPLACE), bool(flags & _RENAME_EXCHANGE)
            ),
            parent,
            new_parent,
        )
        self._names.move((parent, name), (new_parent, new_name), exchange=bool(flags & _RENAME_EXCHANGE))

    async def _change_names(self, operation: wire.Operation, *directories: InodeId) -> None:
        mark = self._changing_names(*directories)
        try:
            answer = await self._session.call(operation)
        finally:
            self._changing_names()  # what was fetched meanwhile may be from before
        assert isinstance(answer, wire.Done)
        self._parents.forget()  # the directory that was moved or removed may be among them
        self._parents.learn(answer.directories, mark)

    # ------------------------------------------------------------------------------------------------- files

    async def create(
        self, caller: Caller, parent: InodeId, name: bytes, mode: int, flags: int, *, kill_privileges: bool = False
    ) -> tuple[Attr, Opened]:
        _check_name(name)
        if self._names.are_suspect(parent) and self._retries.refuse(caller, parent, OPEN_S, making=True):
            raise Stale
        mark = self._changing_names(parent)
        operation = wire.Create(
            parent, name, FileType.FILE, stat.S_IMODE(mode), caller.uid, caller.gid,
            exclusive=bool(flags & os.O_EXCL), open=True,
        )  # fmt: skip
        attr, number, directories = await self._files.create(operation, flags, kill_privileges=kill_privileges)
        self._forgotten.discard(attr.ino)
        self._parents.learn(directories, mark)
        self._given(parent, name, attr.ino, mark)
        self._retries.done(caller)
        keep = self._kernel.opened(attr.ino, attr.version)
        return attr, Opened(number, keep_cache=keep)

    async def open(
        self, caller: Caller, ino: InodeId, flags: int, *, kill_privileges: bool = False
    ) -> Opened:
        try:
            handle, number = await self._files.open(
                ino, flags, kill_privileges=kill_privileges, refuse=lambda attr: self._refuse_open(caller, attr)
            )
        except NotFound:
            self._retries.refuse(caller, ino, OPEN_S)
            raise Stale from None
        self._retries.done(caller)
        if flags & os.O_TRUNC:
            self._changes += 1
        try:
            await self._kernel.has_been_told(ino)
        except asyncio.CancelledError:
            self._files.release(number)
            raise
        return Opened(number, keep_cache=self._kernel.opened(ino, handle.file.attr.version))

    def _refuse_open(self, caller: Caller, attr: Attr) -> bool:
        if not self._names.are_suspect(attr.ino, 1 if attr.is_dir else attr.nlink):
            return False
        return self._retries.refuse(caller, attr.ino, OPEN_S, is_open=self._files.is_open(attr.ino))

    async def read(self, handle: Handle, offset: int, size: int) -> Sequence[Buffer]:
        return await self._files.read(handle, offset, size)

    def begin_read(self, handle: Handle, offset: int, size: int, done: ReadDone) -> bool:
        return self._files.begin_read(handle, offset, size, done)

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
        self._changes += 1
        return await self._files.write(caller, handle, offset, data, append=append, kill_privileges=kill_privileges)

    async def flush(self, handle: Handle, owner: LockOwner) -> None:
        holder = Holder(self._files.get(handle).file.ino, owner, flock=False)
        late = False
        try:
            await self._files.flush(handle)
        except Unavailable:
            late = True
            raise
        finally:
            if late:
                self._locks.release_later(holder)
            else:
                await self._locks.release(holder)

    async def fsync(self, handle: Handle, *, data_only: bool) -> None:
        await self._files.fsync(handle)

    async def release(self, handle: Handle) -> None:
        self._files.release(handle)
        await self._locks.closed(handle)

    async def fallocate(self, caller: Caller, handle: Handle, mode: int, offset: int, length: int) -> None:
        self._changes += 1
        await self._allocation.fallocate(caller, handle, mode, offset, length)

    async def seek(self, handle: Handle, offset: int, whence: int) -> int:
        return await self._allocation.seek(handle, offset, whence)

    async def copy_range(
        self, caller: Caller, source: Handle, source_offset: int, target: Handle, target_offset: int, length: int
    ) -> int:
        self._changes += 1
        return await self._allocation.copy_range(caller, source, source_offset, target, target_offset, length)

    # ------------------------------------------------------------------------------------------- directories

    async def opendir(self, caller: Caller, ino: InodeId) -> Opened:
        directory = OpenDirectory(ino, self._fetch_entries, lambda: self._changes)
        await directory.begin()  # when that is answered, all is heard of that others did before
        if self._names.are_suspect(ino) and self._retries.refuse(caller, ino, OPEN_S):
            raise Stale
        self._retries.done(caller)
        number = Handle(self._next_directory)
        self._next_directory += 1
        self._directories[number] = directory
        return Opened(number)

    async def _fetch_entries(self, ino: InodeId, after: bytes, limit: int) -> tuple[list[Entry], bool]:
        mark = self._invalidations.now()
        try:
            answer = await self._session.call(wire.ReadDirectory(ino, after, limit))
        except NotFound:  # removed while it was open: it is empty
            return [], False
        assert isinstance(answer, wire.Entries)
        entries = []
        for entry in answer.entries:
            entries.append(Entry(entry.name, self._told(entry.attr, mark)))
            self._given(ino, entry.name, entry.attr.ino, mark)
        return entries, answer.more

    def _directory(self, handle: Handle) -> OpenDirectory:
        if (directory := self._directories.get(handle)) is None:
            raise BadHandle(f"no open directory has the handle {handle}")
        return directory

    async def readdir(self, caller: Caller, handle: Handle, cookie: int) -> Sequence[DirectoryEntry]:
        directory = self._directory(handle)
        own = Attr(directory.ino, FileType.DIRECTORY, 0o755)
        if cookie < 2:
            with contextlib.suppress(NotFound):
                own = await self.getattr(caller, directory.ino, None)
        return await directory.read(cookie, own)

    async def releasedir(self, handle: Handle) -> None:
        self._directory(handle)
        del self._directories[handle]

    async def fsyncdir(self, handle: Handle) -> None:
        """Names are durable when the call that made them has returned."""
        self._directory(handle)

    async def statfs(self) -> Space:
        answer = await self._session.call(wire.GetSpace())
        assert isinstance(answer, wire.SpaceAnswer)
        return Space(answer.total, answer.available, answer.available, answer.files, _FREE_INODES)

    # --------------------------------------------------------------------------- extended attributes, locks

    async def getxattr(self, caller: Caller, ino: InodeId, name: bytes) -> bytes:
        return await self._xattrs.get(caller, ino, name)

    async def setxattr(self, caller: Caller, ino: InodeId, name: bytes, value: bytes, flags: int) -> None:
        self._changes += 1
        self._invalidations.changed(ino)
        await self._xattrs.set(caller, ino, name, value, flags)

    async def listxattr(self, caller: Caller, ino: InodeId) -> Sequence[bytes]:
        return await self._xattrs.list(caller, ino)

    async def removexattr(self, caller: Caller, ino: InodeId, name: bytes) -> None:
        self._changes += 1
        self._invalidations.changed(ino)
        await self._xattrs.remove(caller, ino, name)

    async def get_lock(self, handle: Handle, owner: LockOwner, lock: Lock) -> Lock | None:
        return await self._locks.get(self._files.usable(handle).file.ino, owner, lock)

    async def set_lock(self, handle: Handle, owner: LockOwner, lock: Lock, *, flock: bool, wait: bool) -> None:
        holder = Holder(self._files.usable(handle).file.ino, owner, flock)
        await self._locks.set(handle, holder, lock, wait=wait)
        try:
            self._files.usable(handle)
        except LockLost:  # another one, while this was waited for
            await self._locks.release(holder)
            raise


class _New(NamedTuple):
    type: FileType
    mode: int
    rdev: int = 0
    target: bytes = b""


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX:
        raise NameTooLong
