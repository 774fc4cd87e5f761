"""From a request of the kernel to a call of the file system, and from its result to the bytes of the answer.

Thin: each handler unpacks, calls, packs. Nothing here reads or writes the device.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from dfslib.model import Attr, FileType, InodeId
from dfslib.mount import fuse_protocol as fuse
from dfslib.mount.filesystem import (
    KERNEL_PID,
    AttrUpdate,
    Buffer,
    Caller,
    FileSystem,
    Handle,
    Lock,
    LockKind,
    LockOwner,
    Opened,
)
from dfslib.mount.fuse_protocol import Op, Valid

_NS: Final = 1_000_000_000
_LOCK_KINDS: Final = {0: LockKind.READ, 1: LockKind.WRITE, 2: LockKind.UNLOCK}
_LOCK_TYPES: Final = {kind: number for number, kind in _LOCK_KINDS.items()}


class Errno(Exception):
    """The answer is this error."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode.get(code, str(code)))
        self.code = code


class Malformed(Exception):
    """Not a request of this protocol."""


class Request(NamedTuple):
    """`data`: what follows the header; WRITE's bytes apart, in `payload`."""

    op: int
    unique: int
    node: InodeId
    caller: Caller
    data: memoryview
    payload: Buffer = b""


class Answer(NamedTuple):
    """`nodes`: the inodes that the kernel counts one reference more to, if it takes the answer."""

    pieces: Sequence[Buffer] = ()
    nodes: Sequence[InodeId] = ()


class Owners(NamedTuple):
    """Whom all files are shown to belong to, where that was asked for."""

    uid: int | None = None
    gid: int | None = None


_EMPTY: Final = Answer()


class Requests:
    """`handle` raises Errno, Malformed, and what the file system raises."""

    def __init__(self, filesystem: FileSystem, owners: Owners) -> None:
        self._fs = filesystem
        self._owners = owners
        self._handlers: dict[int, Callable[[Request], Awaitable[Answer]]] = {
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.SETATTR: self._setattr,
            Op.READLINK: self._readlink,
            Op.SYMLINK: self._symlink,
            Op.MKNOD: self._mknod,
            Op.MKDIR: self._mkdir,
            Op.UNLINK: self._unlink,
            Op.RMDIR: self._rmdir,
            Op.RENAME: self._rename,
            Op.RENAME2: self._rename2,
            Op.LINK: self._link,
            Op.OPEN: self._open,
            Op.CREATE: self._create,
            Op.READ: self._read,
            Op.WRITE: self._write,
            Op.STATFS: self._statfs,
            Op.RELEASE: self._release,
            Op.FSYNC: self._fsync,
            Op.FLUSH: self._flush,
            Op.SETXATTR: self._setxattr,
            Op.GETXATTR: self._getxattr,
            Op.LISTXATTR: self._listxattr,
            Op.REMOVEXATTR: self._removexattr,
            Op.OPENDIR: self._opendir,
            Op.READDIR: self._readdir,
            Op.READDIRPLUS: self._readdirplus,
            Op.RELEASEDIR: self._releasedir,
            Op.FSYNCDIR: self._fsyncdir,
            Op.GETLK: self._getlk,
            Op.SETLK: self._setlk,
            Op.SETLKW: self._setlkw,
            Op.FALLOCATE: self._fallocate,
            Op.LSEEK: self._lseek,
            Op.COPY_FILE_RANGE: self._copy_file_range,
        }

    async def handle(self, request: Request) -> Answer:
        handler = self._handlers.get(request.op)
        if handler is None:
            raise Errno(errno.ENOSYS)  # the kernel does not ask again, or does without
        return await handler(request)

    # ------------------------------------------------------------------------------------------------ answers

    def _shown(self, attr: Attr) -> Attr:
        uid, gid = self._owners
        if uid is None and gid is None:
            return attr
        return replace(attr, uid=attr.uid if uid is None else uid, gid=attr.gid if gid is None else gid)

    def _entry(self, attr: Attr) -> Answer:
        return Answer([fuse.pack_entry(self._shown(attr), self._fs.cache_s())], [attr.ino])

    def _attr(self, attr: Attr) -> Answer:
        return Answer([fuse.pack_attr_out(self._shown(attr), self._fs.cache_s())])

    # ------------------------------------------------------------------------------------- names, attributes

    async def _lookup(self, request: Request) -> Answer:
        (name,) = _names(request.data, 1)
        return self._entry(await self._fs.lookup(request.caller, request.node, name))

    async def _getattr(self, request: Request) -> Answer:
        flags, _, handle = fuse.GETATTR_IN.unpack_from(request.data)
        known = Handle(handle) if flags & fuse.GETATTR_FH else None
        return self._attr(await self._fs.getattr(request.caller, request.node, known))

    async def _setattr(self, request: Request) -> Answer:
        (
            valid, _, handle, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _,
        ) = fuse.SETATTR_IN.unpack_from(request.data)  # fmt: skip
        update = AttrUpdate(
            mode=stat.S_IMODE(mode) if valid & Valid.MODE else None,
            uid=uid if valid & Valid.UID else None,
            gid=gid if valid & Valid.GID else None,
            size=size if valid & Valid.SIZE else None,
            atime_ns=atime * _NS + atime_ns if valid & Valid.ATIME and not valid & Valid.ATIME_NOW else None,
            mtime_ns=mtime * _NS + mtime_ns if valid & Valid.MTIME and not valid & Valid.MTIME_NOW else None,
            now_atime=bool(valid & Valid.ATIME_NOW),
            now_mtime=bool(valid & Valid.MTIME_NOW),
            kill_privileges=bool(valid & Valid.KILL_SUIDGID),
        )
        known = Handle(handle) if valid & Valid.FH else None
        return self._attr(await self._fs.setattr(request.caller, request.node, update, known))

    async def _readlink(self, request: Request) -> Answer:
        return Answer([await self._fs.readlink(request.caller, request.node)])

    async def _symlink(self, request: Request) -> Answer:
        name, target = _names(request.data, 2)
        return self._entry(await self._fs.symlink(request.caller, request.node, name, target))

    async def _mknod(self, request: Request) -> Answer:
        mode, rdev, umask, _ = fuse.FOUR.unpack_from(request.data)
        (name,) = _names(request.data[fuse.FOUR.size :], 1)
        return self._entry(await self._fs.mknod(request.caller, request.node, name, mode & ~umask, rdev))

    async def _mkdir(self, request: Request) -> Answer:
        mode, umask = fuse.TWO.unpack_from(request.data)
        (name,) = _names(request.data[fuse.TWO.size :], 1)
        mode = stat.S_IMODE(mode & ~umask)
        return self._entry(await self._fs.mkdir(request.caller, request.node, name, mode))

    async def _unlink(self, request: Request) -> Answer:
        (name,) = _names(request.data, 1)
        await self._fs.unlink(request.caller, request.node, name)
        return _EMPTY

    async def _rmdir(self, request: Request) -> Answer:
        (name,) = _names(request.data, 1)
        await self._fs.rmdir(request.caller, request.node, name)
        return _EMPTY

    async def _rename(self, request: Request) -> Answer:
        (parent,) = fuse.NODE.unpack_from(request.data)
        old, new = _names(request.data[fuse.NODE.size :], 2)
        await self._fs.rename(request.caller, request.node, old, InodeId(parent), new, 0)
        return _EMPTY

    async def _rename2(self, request: Request) -> Answer:
        parent, flags, _ = fuse.RENAME2_IN.unpack_from(request.data)
        old, new = _names(request.data[fuse.RENAME2_IN.size :], 2)
        await self._fs.rename(request.caller, request.node, old, InodeId(parent), new, flags)
        return _EMPTY

    async def _link(self, request: Request) -> Answer:
        (ino,) = fuse.NODE.unpack_from(request.data)
        (name,) = _names(request.data[fuse.NODE.size :], 1)
        return self._entry(await self._fs.link(request.caller, InodeId(ino), request.node, name))

    # -------------------------------------------------------------------------------------------------- files

    async def _open(self, request: Request) -> Answer:
        flags, how = fuse.TWO.unpack_from(request.data)
        kill = _kills_privileges(request.caller, how)
        return Answer([_opened(await self._fs.open(request.caller, request.node, flags, kill_privileges=kill))])

    async def _create(self, request: Request) -> Answer:
        flags, mode, umask, how = fuse.FOUR.unpack_from(request.data)
        (name,) = _names(request.data[fuse.FOUR.size :], 1)
        mode = stat.S_IMODE(mode & ~umask)
        kill = _kills_privileges(request.caller, how)
        attr, opened = await self._fs.create(request.caller, request.node, name, mode, flags, kill_privileges=kill)
        entry = self._entry(attr)
        return Answer([*entry.pieces, _opened(opened)], entry.nodes)

    async def _read(self, request: Request) -> Answer:
        handle, offset, size, *_ = fuse.READ_IN.unpack_from(request.data)
        return Answer(await self._fs.read(Handle(handle), offset, size))

    async def _write(self, request: Request) -> Answer:
        handle, offset, size, flags, _, open_flags, _ = fuse.WRITE_IN.unpack_from(request.data)
        if size != len(request.payload):
            raise Malformed(f"a write of {size} bytes carries {len(request.payload)}")
        caller = request.caller._replace(pid=KERNEL_PID) if flags & fuse.WRITE_CACHE else request.caller
        written = await self._fs.write(
            caller,
            Handle(handle),
            offset,
            request.payload,
            append=bool(open_flags & os.O_APPEND),
            kill_privileges=bool(flags & fuse.WRITE_KILL_SUIDGID),
        )
        return Answer([fuse.WRITE_OUT.pack(written, 0)])

    async def _statfs(self, request: Request) -> Answer:
        return Answer([fuse.pack_statfs(await self._fs.statfs())])

    async def _release(self, request: Request) -> Answer:
        handle, *_ = fuse.RELEASE_IN.unpack_from(request.data)
        await self._fs.release(Handle(handle))
        return _EMPTY

    async def _fsync(self, request: Request) -> Answer:
        handle, flags, _ = fuse.FSYNC_IN.unpack_from(request.data)
        await self._fs.fsync(Handle(handle), data_only=bool(flags & fuse.FSYNC_FDATASYNC))
        return _EMPTY

    async def _flush(self, request: Request) -> Answer:
        handle, _, _, owner = fuse.FLUSH_IN.unpack_from(request.data)
        await self._fs.flush(Handle(handle), LockOwner(owner))
        return _EMPTY

    async def _fallocate(self, request: Request) -> Answer:
        handle, offset, length, mode, _ = fuse.FALLOCATE_IN.unpack_from(request.data)
        await self._fs.fallocate(request.caller, Handle(handle), mode, offset, length)
        return _EMPTY

    async def _lseek(self, request: Request) -> Answer:
        handle, offset, whence, _ = fuse.LSEEK_IN.unpack_from(request.data)
        return Answer([fuse.NODE.pack(await self._fs.seek(Handle(handle), offset, whence))])

    async def _copy_file_range(self, request: Request) -> Answer:
        source, source_offset, _, target, target_offset, length, _ = fuse.COPY_IN.unpack_from(request.data)
        length = min(length, (1 << 32) - 4096)  # the answer has 32 bits
        copied = await self._fs.copy_range(
            request.caller, Handle(source), source_offset, Handle(target), target_offset, length
        )
        return Answer([fuse.WRITE_OUT.pack(copied, 0)])

    # -------------------------------------------------------------------------------------------- directories

    async def _opendir(self, request: Request) -> Answer:
        return Answer([_opened(await self._fs.opendir(request.caller, request.node))])

    async def _readdir(self, request: Request) -> Answer:
        handle, cookie, size, *_ = fuse.READ_IN.unpack_from(request.data)
        out: list[bytes] = []
        for entry in await self._fs.readdir(request.caller, Handle(handle), cookie):
            packed = fuse.pack_dirent(entry)
            size -= len(packed)
            if size < 0:
                break
            out.append(packed)
        return Answer([b"".join(out)])

    async def _readdirplus(self, request: Request) -> Answer:
        handle, cookie, size, *_ = fuse.READ_IN.unpack_from(request.data)
        entries = await self._fs.readdir(request.caller, Handle(handle), cookie)
        valid_s = self._fs.cache_s()
        out: list[bytes] = []
        nodes: list[InodeId] = []
        for entry in entries:
            dirent = fuse.pack_dirent(entry)
            size -= len(fuse.NO_ENTRY) + _ATTR_BYTES + len(dirent)
            if size < 0:
                break
            if entry.name in (b".", b".."):
                out += (fuse.NO_ENTRY, fuse.pack_attr(self._shown(entry.attr)), dirent)
            else:
                out += (fuse.pack_entry(self._shown(entry.attr), valid_s), dirent)
                nodes.append(entry.attr.ino)
        return Answer([b"".join(out)], nodes)

    async def _releasedir(self, request: Request) -> Answer:
        handle, *_ = fuse.RELEASE_IN.unpack_from(request.data)
        await self._fs.releasedir(Handle(handle))
        return _EMPTY

    async def _fsyncdir(self, request: Request) -> Answer:
        handle, *_ = fuse.FSYNC_IN.unpack_from(request.data)
        await self._fs.fsyncdir(Handle(handle))
        return _EMPTY

    # ----------------------------------------------------------------------------- extended attributes, locks

    async def _setxattr(self, request: Request) -> Answer:
        size, flags = fuse.TWO.unpack_from(request.data)
        rest = bytes(request.data[fuse.TWO.size :])
        name, _, value = rest.partition(b"\0")
        if len(value) < size:
            raise Malformed("an extended attribute is shorter than it says")
        await self._fs.setxattr(request.caller, request.node, name, value[:size], flags)
        return _EMPTY

    async def _getxattr(self, request: Request) -> Answer:
        size, _ = fuse.TWO.unpack_from(request.data)
        (name,) = _names(request.data[fuse.TWO.size :], 1)
        return _sized(await self._fs.getxattr(request.caller, request.node, name), size)

    async def _listxattr(self, request: Request) -> Answer:
        size, _ = fuse.TWO.unpack_from(request.data)
        names = await self._fs.listxattr(request.caller, request.node)
        return _sized(b"".join(name + b"\0" for name in names), size)

    async def _removexattr(self, request: Request) -> Answer:
        (name,) = _names(request.data, 1)
        await self._fs.removexattr(request.caller, request.node, name)
        return _EMPTY

    async def _getlk(self, request: Request) -> Answer:
        handle, owner, lock, _ = _lock(request.data)
        held = await self._fs.get_lock(handle, owner, lock)
        if held is None:
            return Answer([fuse.LOCK_OUT.pack(0, 0, _LOCK_TYPES[LockKind.UNLOCK], 0)])
        return Answer([fuse.LOCK_OUT.pack(held.start, held.end, _LOCK_TYPES[held.kind], held.pid)])

    async def _setlk(self, request: Request) -> Answer:
        handle, owner, lock, flock = _lock(request.data)
        await self._fs.set_lock(handle, owner, lock, flock=flock, wait=False)
        return _EMPTY

    async def _setlkw(self, request: Request) -> Answer:
        handle, owner, lock, flock = _lock(request.data)
        await self._fs.set_lock(handle, owner, lock, flock=flock, wait=True)
        return _EMPTY


_ATTR_BYTES: Final = len(
    fuse.pack_attr(Attr(InodeId(fuse.ROOT_ID), FileType.DIRECTORY, 0o755))
)


def _names(data: memoryview, count: int) -> list[bytes]:
    """Names that each end in NUL. Raises Malformed."""
    parts = bytes(data).split(b"\0")
    if len(parts) <= count:
        raise Malformed(f"{len(parts) - 1} names where there should be {count}")
    return parts[:count]


def _kills_privileges(caller: Caller, how: int) -> bool:
    """Whether O_TRUNC clears setuid and setgid; kernels that do not say so leave it to us."""
    return bool(how & fuse.OPEN_KILL_SUIDGID) or caller.uid != 0


def _opened(opened: Opened) -> bytes:
    flags = (fuse.FOPEN_KEEP_CACHE if opened.keep_cache else 0) | (fuse.FOPEN_DIRECT_IO if opened.direct else 0)
    return fuse.OPEN_OUT.pack(opened.handle, flags, 0)


def _sized(value: bytes, size: int) -> Answer:
    """A value, or, for a size of 0, how long it is: getxattr(2)."""
    if not size:
        return Answer([fuse.TWO.pack(len(value), 0)])
    if len(value) > size:
        raise Errno(errno.ERANGE)
    return Answer([value])


def _lock(data: memoryview) -> tuple[Handle, LockOwner, Lock, bool]:
    handle, owner, start, end, kind, pid, flags, _ = fuse.LOCK_IN.unpack_from(data)
    if kind not in _LOCK_KINDS:
        raise Errno(errno.EINVAL)
    return Handle(handle), LockOwner(owner), Lock(_LOCK_KINDS[kind], start, end, pid), bool(flags & fuse.LOCK_FLOCK)
