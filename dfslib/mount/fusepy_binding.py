"""The portable binding: fusepy over libfuse 2, for macOS and wherever /dev/fuse cannot be spoken directly.

Thin as the Linux one, and less able, because libfuse's interface of paths has no room for more:

- No invalidation: the kernel may keep nothing, so every stat asks the namenode.
- flock(2) holds among the programs of one host only; fcntl(2) locks hold everywhere.
- renameat2(2) with flags, fallocate(2), lseek(2) for data and holes, and copy_file_range(2) are not passed on.
- A request cannot be interrupted; one that waits for a lock, or for a namenode that is away, waits to its end.
- A directory is listed into memory as a whole.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import importlib
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from dfslib.errors import DfsError, InputOutput, InvalidArgument, NotSupported
from dfslib.model import ROOT, Attr, FileType, InodeId
from dfslib.mount.filesystem import AttrUpdate, Caller, FileSystem, Handle, Lock, LockKind, LockOwner, Opened

log = logging.getLogger("dfs.fusepy")

T = TypeVar("T")

_TYPE_BITS: Final = {
    FileType.FILE: stat.S_IFREG,
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.FIFO: stat.S_IFIFO,
    FileType.CHARACTER: stat.S_IFCHR,
    FileType.BLOCK: stat.S_IFBLK,
    FileType.SOCKET: stat.S_IFSOCK,
}
_ENCODING: Final = "latin-1"
"""Maps every byte to a character and back: names are bytes, and fusepy insists on text."""
_UTIME_NOW: Final = (1 << 30) - 1
_UTIME_OMIT: Final = (1 << 30) - 2
_NO_ID: Final = (1 << 32) - 1
_LOCK_KINDS: Final = {
    fcntl.F_RDLCK: LockKind.READ,
    fcntl.F_WRLCK: LockKind.WRITE,
    fcntl.F_UNLCK: LockKind.UNLOCK,
}


_SPAN: Final = [("start", ctypes.c_int64), ("len", ctypes.c_int64), ("pid", ctypes.c_int)]
_HOW: Final = [("type", ctypes.c_short), ("whence", ctypes.c_short)]


class _Flock(ctypes.Structure):
    """struct flock of fcntl(2)."""

    _fields_ = [*_SPAN, *_HOW] if sys.platform == "darwin" else [*_HOW, *_SPAN]


class _NoNotifier:
    """Nothing is cached, so there is nothing to invalidate."""

    async def invalidate_inode(self, ino: InodeId, *, attributes_only: bool = False) -> None:
        return

    async def invalidate_entry(self, parent: InodeId, name: bytes) -> None:
        return

    async def invalidate_all(self) -> None:
        return


def load_fusepy() -> Any:
    """The module `fuse`. Raises NotSupported where fusepy or libfuse is missing."""
    try:
        return importlib.import_module("fuse")
    except (ImportError, OSError) as error:
        raise NotSupported(f"fusepy cannot be used here: {error}") from error


async def serve(
    filesystem: FileSystem, mountpoint: Path, options: dict[str, object], ready: Callable[[], None]
) -> None:
    """Mount, call `ready` when the kernel has, and serve until unmounted.

    `options` are libfuse's (`ro`, `allow_other`, `fsname=`, ...). Raises NotSupported, InvalidArgument where
    libfuse refuses.
    """
    fuse = load_fusepy()
    filesystem.attach(_NoNotifier())
    loop = asyncio.get_running_loop()

    def mounted() -> None:
        loop.call_soon_threadsafe(ready)

    operations = _Operations(filesystem, loop, fuse, mounted)
    ended: asyncio.Future[None] = loop.create_future()
    thread = threading.Thread(
        target=_run, args=(fuse, operations, mountpoint, options, loop, ended), name="fusepy", daemon=True
    )
    thread.start()
    await ended


def _run(
    fuse: Any,
    operations: _Operations,
    mountpoint: Path,
    options: dict[str, object],
    loop: asyncio.AbstractEventLoop,
    ended: asyncio.Future[None],
) -> None:
    own = {
        "raw_fi": True,
        "encoding": _ENCODING,
        "foreground": True,
        "use_ino": True,
        "hard_remove": True,  # else an open file that is removed is renamed to .fuse_hidden...
        "default_permissions": True,
        "attr_timeout": 0,
        "entry_timeout": 0,
        "negative_timeout": 0,
    }
    if sys.platform == "linux":
        own["big_writes"] = True
    failure: DfsError | None = None
    try:
        fuse.FUSE(operations, os.fsencode(mountpoint).decode(_ENCODING), **{**own, **options})
    except RuntimeError as error:
        failure = InvalidArgument(f"libfuse could not mount (status {error}); its reason stands above", str(mountpoint))
    except Exception as error:
        log.exception("libfuse failed")
        failure = InputOutput(f"libfuse failed: {error!r}", str(mountpoint))
    loop.call_soon_threadsafe(_end, ended, failure)


def _end(ended: asyncio.Future[None], failure: DfsError | None) -> None:
    if ended.done():
        return
    if failure is None:
        ended.set_result(None)
    else:
        ended.set_exception(failure)


class _Operations:
    """What fusepy calls, from libfuse's threads: paths to inodes, then one call of the file system each."""

    use_ns: Final = True
    flag_nullpath_ok: Final = True
    flag_utime_omit_ok: Final = True

    def __init__(
        self, filesystem: FileSystem, loop: asyncio.AbstractEventLoop, fuse: Any, ready: Callable[[], None]
    ) -> None:
        self._fs = filesystem
        self._loop = loop
        self._fuse = fuse
        self._ready = ready
        self._open: dict[int, InodeId] = {}
        """By handle: an open file may have no path any more."""

    def __call__(self, operation: str, *args: Any) -> Any:
        try:
            return getattr(self, operation)(*args)
        except DfsError as error:
            raise self._fuse.FuseOSError(error.errno) from error
        except Exception as error:
            log.exception("request failed unexpectedly operation=%s", operation)
            raise self._fuse.FuseOSError(errno.EIO) from error

    def init(self, _: str) -> None:
        self._ready()

    def destroy(self, _: str) -> None:
        return

    def getattr(self, path: str | None, fi: Any = None) -> dict[str, int]:
        caller = self._caller()
        return _stat(self._with(path, lambda ino, handle: self._fs.getattr(caller, ino, handle), fi))

    def access(self, _: str, __: int) -> int:
        return 0  # default_permissions: the kernel has decided

    def chmod(self, path: str, mode: int) -> None:
        self._set(path, AttrUpdate(mode=mode & 0o7777))

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._set(
            path,
            AttrUpdate(
                uid=None if uid in (-1, _NO_ID) else uid,
                gid=None if gid in (-1, _NO_ID) else gid,
                kill_privileges=True,
            ),
        )

    def truncate(self, path: str | None, length: int, fi: Any = None) -> None:
        self._set(path, AttrUpdate(size=length), fi)

    def utimens(self, path: str, times: tuple[int, int] | None) -> None:
        atime, mtime = times or (_UTIME_NOW, _UTIME_NOW)
        self._set(
            path,
            AttrUpdate(
                atime_ns=None if atime in (_UTIME_NOW, _UTIME_OMIT) else atime,
                mtime_ns=None if mtime in (_UTIME_NOW, _UTIME_OMIT) else mtime,
                now_atime=atime == _UTIME_NOW,
                now_mtime=mtime == _UTIME_NOW,
            ),
        )

    def readlink(self, path: str) -> str:
        caller = self._caller()
        return self._with(path, lambda ino, _: self._fs.readlink(caller, ino)).decode(_ENCODING)

    def mknod(self, path: str, mode: int, rdev: int) -> None:
        self._at(path, lambda parent, name, caller: self._fs.mknod(caller, parent, name, mode, rdev))

    def mkdir(self, path: str, mode: int) -> None:
        self._at(path, lambda parent, name, caller: self._fs.mkdir(caller, parent, name, mode & 0o7777))

    def symlink(self, path: str, target: str) -> None:
        raw = target.encode(_ENCODING)
        self._at(path, lambda parent, name, caller: self._fs.symlink(caller, parent, name, raw))

    def link(self, path: str, existing: str) -> None:
        async def run(parent: InodeId, name: bytes, caller: Caller) -> None:
            await self._fs.link(caller, await self._resolve(existing, caller), parent, name)

        self._at(path, run)

    def unlink(self, path: str) -> None:
        self._at(path, lambda parent, name, caller: self._fs.unlink(caller, parent, name))

    def rmdir(self, path: str) -> None:
        self._at(path, lambda parent, name, caller: self._fs.rmdir(caller, parent, name))

    def rename(self, old: str, new: str) -> None:
        async def run(parent: InodeId, name: bytes, caller: Caller) -> None:
            folder, _, last = new.rpartition("/")
            target = await self._resolve(folder or "/", caller)
            await self._fs.rename(caller, parent, name, target, last.encode(_ENCODING), 0)

        self._at(old, run)

    def create(self, path: str, mode: int, fi: Any) -> int:
        attr, opened = self._at(
            path, lambda parent, name, caller: self._fs.create(
                caller, parent, name, mode & 0o7777, fi.flags, kill_privileges=caller.uid != 0
            ),
        )
        return self._note(fi, attr.ino, opened)

    def open(self, path: str, fi: Any) -> int:
        caller = self._caller()

        async def run(ino: InodeId, _: Handle | None) -> tuple[InodeId, Opened]:
            return ino, await self._fs.open(caller, ino, fi.flags, kill_privileges=caller.uid != 0)

        return self._note(fi, *self._with(path, run))

    def read(self, _: str | None, size: int, offset: int, fi: Any) -> bytes:
        return b"".join(self._wait(self._fs.read(Handle(fi.fh), offset, size)))

    def write(self, _: str | None, data: bytes, offset: int, fi: Any) -> int:
        caller = self._caller()
        append = bool(fi.flags & os.O_APPEND)
        return self._wait(
            self._fs.write(caller, Handle(fi.fh), offset, data, append=append, kill_privileges=caller.uid != 0)
        )

    def flush(self, _: str | None, fi: Any) -> None:
        self._wait(self._fs.flush(Handle(fi.fh), LockOwner(fi.lock_owner)))

    def fsync(self, _: str | None, data_only: int, fi: Any) -> None:
        self._wait(self._fs.fsync(Handle(fi.fh), data_only=bool(data_only)))

    def release(self, _: str | None, fi: Any) -> None:
        self._open.pop(fi.fh, None)
        self._wait(self._fs.release(Handle(fi.fh)))

    def opendir(self, path: str) -> int:
        caller = self._caller()
        return self._with(path, lambda ino, _: self._fs.opendir(caller, ino)).handle

    def readdir(self, _: str | None, handle: int) -> Iterable[tuple[str, dict[str, int], int]]:
        caller, cookie = self._caller(), 0
        while entries := self._wait(self._fs.readdir(caller, Handle(handle), cookie)):
            for entry in entries:
                yield entry.name.decode(_ENCODING), _stat(entry.attr), 0
            cookie = entries[-1].cookie

    def releasedir(self, _: str | None, handle: int) -> None:
        self._wait(self._fs.releasedir(Handle(handle)))

    def fsyncdir(self, _: str | None, __: int, handle: int) -> None:
        self._wait(self._fs.fsyncdir(Handle(handle)))

    def statfs(self, _: str) -> dict[str, int]:
        space = self._wait(self._fs.statfs())
        unit = 4096
        return {
            "f_bsize": unit,
            "f_frsize": unit,
            "f_blocks": space.total // unit,
            "f_bfree": space.free // unit,
            "f_bavail": space.available // unit,
            "f_files": space.files,
            "f_ffree": space.free_files,
            "f_favail": space.free_files,
            "f_namemax": 255,
        }

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        caller = self._caller()
        return self._with(path, lambda ino, _: self._fs.getxattr(caller, ino, name.encode(_ENCODING)))

    def setxattr(self, path: str, name: str, value: bytes, flags: int, _position: int = 0) -> None:
        caller, raw = self._caller(), name.encode(_ENCODING)
        self._with(path, lambda ino, _: self._fs.setxattr(caller, ino, raw, value, flags))

    def listxattr(self, path: str) -> list[str]:
        caller = self._caller()
        return [name.decode(_ENCODING) for name in self._with(path, lambda ino, _: self._fs.listxattr(caller, ino))]

    def removexattr(self, path: str, name: str) -> None:
        caller, raw = self._caller(), name.encode(_ENCODING)
        self._with(path, lambda ino, _: self._fs.removexattr(caller, ino, raw))

    def lock(self, _: str | None, fi: Any, command: int, pointer: int) -> None:
        """fcntl(2) with F_GETLK, F_SETLK, F_SETLKW; libfuse has made the start absolute."""
        raw = _Flock.from_address(pointer)
        end = raw.start + raw.len - 1 if raw.len else (1 << 63) - 1
        wanted = Lock(_LOCK_KINDS[raw.type], raw.start, end, raw.pid or self._caller().pid)
        handle, owner = Handle(fi.fh), LockOwner(fi.lock_owner)
        if command != fcntl.F_GETLK:
            wait = command == fcntl.F_SETLKW
            self._wait(self._fs.set_lock(handle, owner, wanted, flock=False, wait=wait))
            return
        found = self._wait(self._fs.get_lock(handle, owner, wanted))
        raw.type = fcntl.F_UNLCK
        if found is not None:
            raw.type = fcntl.F_RDLCK if found.kind is LockKind.READ else fcntl.F_WRLCK
            raw.whence, raw.start, raw.pid = os.SEEK_SET, found.start, found.pid
            raw.len = 0 if found.end == (1 << 63) - 1 else found.end - found.start + 1

    def _caller(self) -> Caller:
        return Caller(*self._fuse.fuse_get_context())

    def _note(self, fi: Any, ino: InodeId, opened: Opened) -> int:
        fi.fh, fi.keep_cache, fi.direct_io = opened.handle, opened.keep_cache, opened.direct
        self._open[opened.handle] = ino
        return 0

    def _set(self, path: str | None, update: AttrUpdate, fi: Any = None) -> None:
        caller = self._caller()
        self._with(path, lambda ino, handle: self._fs.setattr(caller, ino, update, handle), fi)

    def _with(
        self, path: str | None, call: Callable[[InodeId, Handle | None], Coroutine[Any, Any, T]], fi: Any = None
    ) -> T:
        """`call` with the inode that is open as `fi`, else with the one at the path."""
        caller = self._caller()

        async def run() -> T:
            if fi is not None:
                return await call(self._open[fi.fh], Handle(fi.fh))
            return await call(await self._resolve(path or "/", caller), None)

        return self._wait(run())

    def _at(self, path: str, call: Callable[[InodeId, bytes, Caller], Coroutine[Any, Any, T]]) -> T:
        """`call` with the directory that a path's last name is in, and that name."""
        caller = self._caller()
        folder, _, name = path.rpartition("/")

        async def run() -> T:
            return await call(await self._resolve(folder or "/", caller), name.encode(_ENCODING), caller)

        return self._wait(run())

    async def _resolve(self, path: str, caller: Caller) -> InodeId:
        """The inode at an absolute path without links on the way: the kernel has followed them."""
        ino = ROOT
        passed: list[InodeId] = []
        try:
            for name in path.encode(_ENCODING).split(b"/"):
                if name:
                    ino = (await self._fs.lookup(caller, ino, name)).ino
                    passed.append(ino)
        finally:
            for looked_up in passed[:-1]:
                self._fs.forget(looked_up)
        return ino

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


def _stat(attr: Attr) -> dict[str, int]:
    return {
        "st_ino": attr.ino,
        "st_mode": _TYPE_BITS[attr.type] | attr.mode,
        "st_nlink": attr.nlink,
        "st_uid": attr.uid,
        "st_gid": attr.gid,
        "st_rdev": attr.rdev,
        "st_size": attr.size,
        "st_blksize": 1 << 17,
        "st_blocks": -(-attr.allocated // 512),
        "st_atime": attr.atime_ns,
        "st_mtime": attr.mtime_ns,
        "st_ctime": attr.ctime_ns,
    }
