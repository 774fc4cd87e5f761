"""The same calls on the VFS of two mounts, without a kernel, and on a local directory; their outcomes side by side.

What the kernel does itself before it asks a file system is done here for the VFS: the walk along a path, and the
checks of types that a file system is never asked about (vfs_*(9) in fs/namei.c and fs/open.c).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from dfslib.errors import DfsError, IsADirectory, NotADirectory, NotPermitted, Stale
from dfslib.model import ROOT, Attr, FileType, InodeId
from dfslib.mount.filesystem import AttrUpdate, Caller, Handle, LockOwner
from dfslib.mount.vfs import VFS

CALLER = Caller(0, 0, 1)
OWNER = LockOwner(1)
_libc = ctypes.CDLL(None, use_errno=True)
Outcome = object
P = ParamSpec("P")
T = TypeVar("T")


class Silent:
    """There is no kernel that has anything cached."""

    async def invalidate_inode(self, ino: InodeId, *, attributes_only: bool = False) -> None: ...
    async def invalidate_entry(self, parent: InodeId, name: bytes) -> None: ...
    async def invalidate_all(self) -> None: ...


def local(call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T | str:
    """The result, or the name of the error."""
    try:
        return call(*args, **named)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


async def remote(call: Callable[[], Awaitable[T]]) -> T | str:
    """As `local`. Where the answer is ESTALE, the kernel walks the path again, and asks once more."""
    try:
        try:
            return await call()
        except Stale:
            return await call()
    except DfsError as error:
        return errno.errorcode[error.errno]


class Slot(NamedTuple):
    """An open file: where it was opened, its handle there, the local descriptor."""

    mount: int
    handle: Handle
    ino: InodeId
    descriptor: int
    appends: bool


class Both:
    """One folder of the cluster and one of the local disk. `mount` is the index of the mount that acts."""

    def __init__(self, mounts: list[VFS], folder: bytes, local_folder: Path) -> None:
        self.mounts = mounts
        self.mount = 0
        self._folder = folder
        self._local = local_folder
        self._top: InodeId = ROOT
        self._open: dict[int, Slot] = {}

    @property
    def vfs(self) -> VFS:
        return self.mounts[self.mount]

    async def begin(self) -> None:
        self._top = (await self.vfs.mkdir(CALLER, ROOT, self._folder, 0o755)).ino

    async def switch(self, mount: int) -> None:
        """The other mount goes on: this one syncs its files, that one hears of it before it is answered."""
        for slot in [slot for slot in self._open.values() if slot.mount == self.mount]:
            await self.vfs.fsync(slot.handle, data_only=True)
        self.mount = mount
        await self.vfs.statfs()

    async def end(self) -> None:
        for slot in list(self._open):
            await self.close(slot)

    # Names.

    def path(self, path: str) -> str:
        return str(self._local / path)

    def is_walkable(self, path: str) -> bool:
        """The walk below does not follow links."""
        parts = path.split("/")[:-1]
        return not any(self._local.joinpath(*parts[: n + 1]).is_symlink() for n in range(len(parts)))

    async def parent(self, path: str) -> tuple[InodeId, bytes]:
        *above, last = path.encode().split(b"/")
        here = self._top
        for part in above:
            attr = await self.vfs.lookup(CALLER, here, part)
            if not attr.is_dir:
                raise NotADirectory
            here = attr.ino
        return here, last

    async def find(self, path: str) -> Attr:
        return await self.vfs.lookup(CALLER, *await self.parent(path))

    async def made(self, make: Callable[..., Awaitable[Attr]], path: str, *more: object) -> None:
        await make(CALLER, *await self.parent(path), *more)

    async def mkdir(self, path: str) -> tuple[Outcome, Outcome]:
        return local(os.mkdir, self.path(path), 0o750), await remote(lambda: self.made(self.vfs.mkdir, path, 0o750))

    async def mkfifo(self, path: str) -> tuple[Outcome, Outcome]:
        mode = stat.S_IFIFO | 0o640
        return local(os.mknod, self.path(path), mode), await remote(lambda: self.made(self.vfs.mknod, path, mode, 0))

    async def symlink(self, path: str, target: str) -> tuple[Outcome, Outcome]:
        return local(os.symlink, target, self.path(path)), await remote(
            lambda: self.made(self.vfs.symlink, path, target.encode())
        )

    async def unlink(self, path: str) -> tuple[Outcome, Outcome]:
        return local(os.unlink, self.path(path)), await remote(lambda: self._remove(path, directory=False))

    async def rmdir(self, path: str) -> tuple[Outcome, Outcome]:
        return local(os.rmdir, self.path(path)), await remote(lambda: self._remove(path, directory=True))

    async def _remove(self, path: str, *, directory: bool) -> None:
        attr = await self.find(path)
        if attr.is_dir != directory:
            raise NotADirectory if directory else IsADirectory
        await (self.vfs.rmdir if directory else self.vfs.unlink)(CALLER, *await self.parent(path))

    async def link(self, path: str, to: str) -> tuple[Outcome, Outcome]:
        return local(os.link, self.path(path), self.path(to), follow_symlinks=False), await remote(
            lambda: self._link(path, to)
        )

    async def _link(self, path: str, to: str) -> None:
        attr = await self.find(path)
        if attr.is_dir:
            await self._raise_if_there(to)
            raise NotPermitted
        await self.vfs.link(CALLER, attr.ino, *await self.parent(to))

    async def _raise_if_there(self, path: str) -> None:
        await self.vfs.mkdir(CALLER, *await self.parent(path), 0o700)
        await self.vfs.rmdir(CALLER, *await self.parent(path))

    async def rename(self, path: str, to: str, flags: int) -> tuple[Outcome, Outcome]:
        return local(_renameat2, self.path(path), self.path(to), flags), await remote(
            lambda: self._rename(path, to, flags)
        )

    async def _rename(self, path: str, to: str, flags: int) -> None:
        await self.vfs.rename(CALLER, *await self.parent(path), *await self.parent(to), flags)

    async def listing(self, path: str) -> tuple[Outcome, Outcome]:
        return local(self._local_listing, path), await remote(lambda: self._listing(path))

    def _local_listing(self, path: str) -> list[tuple[bytes, int]]:
        with os.scandir(self.path(path).encode()) as entries:
            return sorted((entry.name, stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)) for entry in entries)

    async def _listing(self, path: str) -> list[tuple[bytes, int]]:
        attr = await self.find(path) if path else await self.vfs.getattr(CALLER, self._top, None)
        if not attr.is_dir:
            raise NotADirectory
        opened = await self.vfs.opendir(CALLER, attr.ino)
        found: list[tuple[bytes, int]] = []
        cookie = 0
        while entries := await self.vfs.readdir(CALLER, opened.handle, cookie):
            found += [(e.name, _format(e.attr.type)) for e in entries if e.name not in (b".", b"..")]
            cookie = entries[-1].cookie
        await self.vfs.releasedir(opened.handle)
        return sorted(found)

    # Attributes.

    async def look(self, path: str) -> tuple[Outcome, Outcome]:
        return local(self._local_look, path), await remote(lambda: self._look(path))

    def _local_look(self, path: str) -> tuple[object, ...]:
        s = os.lstat(self.path(path))
        size = s.st_size if stat.S_ISREG(s.st_mode) or stat.S_ISLNK(s.st_mode) else 0
        return s.st_mode, s.st_nlink, size

    async def _look(self, path: str) -> tuple[object, ...]:
        attr = await self.find(path)
        size = len(attr.target) if attr.type is FileType.SYMLINK else attr.size if attr.type is FileType.FILE else 0
        return _format(attr.type) | attr.mode, attr.nlink, size

    async def chmod(self, path: str, mode: int) -> tuple[Outcome, Outcome]:
        return local(os.chmod, self.path(path), mode), await remote(lambda: self._set(path, AttrUpdate(mode=mode)))

    async def utime(self, path: str, ns: tuple[int, int]) -> tuple[Outcome, Outcome]:
        update = AttrUpdate(atime_ns=ns[0], mtime_ns=ns[1])
        return local(self._local_utime, path, ns), await remote(
            lambda: self._set(path, update, lambda attr: attr.mtime_ns)
        )

    def _local_utime(self, path: str, ns: tuple[int, int]) -> int:
        os.utime(self.path(path), ns=ns)
        return (self._local / path).stat().st_mtime_ns

    async def truncate(self, path: str, size: int) -> tuple[Outcome, Outcome]:
        return local(os.truncate, self.path(path), size), await remote(lambda: self._truncate(path, size))

    async def _truncate(self, path: str, size: int) -> None:
        if (await self.find(path)).is_dir:
            raise IsADirectory
        await self._set(path, AttrUpdate(size=size))

    async def _set(self, path: str, update: AttrUpdate, tell: Callable[[Attr], object] = lambda _: None) -> object:
        return tell(await self.vfs.setattr(CALLER, (await self.find(path)).ino, update, None))

    async def setxattr(self, path: str, value: bytes, flags: int) -> tuple[Outcome, Outcome]:
        async def there() -> None:
            await self.vfs.setxattr(CALLER, (await self.find(path)).ino, b"user.a", value, flags)

        return local(os.setxattr, self.path(path), b"user.a", value, flags), await remote(there)

    async def xattrs(self, path: str) -> tuple[Outcome, Outcome]:
        async def there() -> dict[bytes, bytes]:
            ino = (await self.find(path)).ino
            return {name: await self.vfs.getxattr(CALLER, ino, name) for name in await self.vfs.listxattr(CALLER, ino)}

        def here() -> dict[bytes, bytes]:
            full = self.path(path)
            return {name.encode(): os.getxattr(full, name) for name in os.listxattr(full)}

        return local(here), await remote(there)

    # Bytes, through files that stay open in a slot.

    async def open(self, slot: int, path: str, flags: int) -> tuple[Outcome, Outcome]:
        await self.close(slot)
        here = local(os.open, self.path(path), flags, 0o644)
        there = await remote(lambda: self._open_there(path, flags))
        if isinstance(here, int) and isinstance(there, tuple):
            self._open[slot] = Slot(self.mount, there[0], there[1], here, bool(flags & os.O_APPEND))
            return "opened", "opened"
        if isinstance(here, int):
            os.close(here)
        return here, there

    async def _open_there(self, path: str, flags: int) -> tuple[Handle, InodeId]:
        if flags & os.O_CREAT:
            attr, opened = await self.vfs.create(CALLER, *await self.parent(path), 0o644, flags)
        else:
            attr = await self.find(path)
            opened = await self.vfs.open(CALLER, attr.ino, flags)
        return opened.handle, attr.ino

    async def close(self, slot: int) -> None:
        if slot not in self._open:
            return
        mount, handle, _, descriptor, _ = self._open.pop(slot)
        os.close(descriptor)
        await self.mounts[mount].flush(handle, OWNER)
        await self.mounts[mount].release(handle)

    def set_append(self, slot: Slot, append: bool) -> None:
        """fcntl(2) with F_SETFL; a file system hears of it with the next write only."""
        flags = fcntl.fcntl(slot.descriptor, fcntl.F_GETFL) & ~os.O_APPEND
        fcntl.fcntl(slot.descriptor, fcntl.F_SETFL, flags | (os.O_APPEND if append else 0))
        number = next(number for number, one in self._open.items() if one is slot)
        self._open[number] = slot._replace(appends=append)

    def pick(self, number: int) -> Slot | None:
        """One of the files that the mount that acts has open, if it has any."""
        found = [slot for slot in self._open.values() if slot.mount == self.mount]
        return found[number % len(found)] if found else None

    async def copy(self, source: Slot, at: int, target: Slot, to: int, length: int) -> tuple[Outcome, Outcome]:
        return local(os.copy_file_range, source.descriptor, target.descriptor, length, at, to), await remote(
            lambda: self.vfs.copy_range(CALLER, source.handle, at, target.handle, to, length)
        )

    async def content(self, path: str) -> bytes:
        """All of a file, through an open of its own."""
        opened = await remote(lambda: self._open_there(path, os.O_RDONLY))
        assert isinstance(opened, tuple), opened
        handle, ino = opened
        parts = await self.vfs.read(handle, 0, (await self.vfs.getattr(CALLER, ino, handle)).size + 1)
        await self.vfs.release(handle)
        return b"".join(parts)


def _format(kind: FileType) -> int:
    return {
        FileType.FILE: stat.S_IFREG,
        FileType.DIRECTORY: stat.S_IFDIR,
        FileType.SYMLINK: stat.S_IFLNK,
        FileType.FIFO: stat.S_IFIFO,
    }[kind]


def _renameat2(path: str, to: str, flags: int) -> None:
    at = -100  # AT_FDCWD
    if _libc.renameat2(at, path.encode(), at, to.encode(), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")
