"""A disk that fails to write, as the kernel lets programs see it: below `os`, for files of one folder.

What could not be written is taken for written from then on, and is told once: to the fsync(2) of that file, and to
the next syncfs(2). Programs go on reading what they wrote; the disk never has it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfslib.runtime import durable_files


class Inode:
    """A file that is written from its beginning to its end. `pieces` are the lengths of what was written, and whether
    the disk has it: None while that waits."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bool | None]] = []
        self.error = False
        """A write back has failed, and no fsync has told so."""

    def settle(self, *, done: bool) -> None:
        self.pieces = [(length, done if state is None else state) for length, state in self.pieces]

    @property
    def waits(self) -> bool:
        return any(state is None for _, state in self.pieces)

    @property
    def is_on_disk(self) -> bool:
        return all(state is True for _, state in self.pieces)


class FailingDisk:
    """`fails` is set and unset by the test. Names are as pessimistic as data: a change that was not written is never
    written with a later one."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self.fails = False
        self._fds: dict[int, Path] = {}
        self._inodes: dict[Path, Inode] = {}
        self._names: dict[Path, Inode] = {}
        """On disk."""
        self._changed: dict[Path, Inode | None] = {}
        """Names whose change waits."""
        self._told = True
        """Every failure was told by a syncfs."""
        for name in ("open", "close", "write", "writev", "rename", "unlink"):
            monkeypatch.setattr(os, name, self._followed(getattr(os, name), getattr(self, f"_{name}")))
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(durable_files, "_libc_syncfs", self._syncfs)

    def has(self, path: Path) -> bool:
        """Whether the disk has this name with all of its file: what is there after a power cut."""
        inode = self._names.get(path)
        return inode is not None and inode.is_on_disk

    def has_data(self, path: Path) -> bool:
        """What a read past the memory finds (O_DIRECT)."""
        return path in self._inodes and self._inodes[path].is_on_disk

    def write_back_data(self) -> None:
        """The kernel writes by itself what files have that waits."""
        for inode in {*self._inodes.values(), *self._names.values()}:
            self._settle(inode)

    def write_back(self) -> None:
        """The kernel writes by itself all that waits."""
        self.write_back_data()
        self.write_back_names()

    def write_back_names(self) -> None:
        self._settle_names(list(self._changed))

    def _settle(self, inode: Inode) -> None:
        if inode.waits:
            inode.settle(done=not self.fails)
            inode.error |= self.fails
            self._told &= not self.fails

    def _settle_names(self, paths: list[Path]) -> bool:
        changes = {path: self._changed.pop(path) for path in paths if path in self._changed}
        if changes and self.fails:
            self._told = False
            return False
        for path, inode in changes.items():
            if inode is None:
                self._names.pop(path, None)
            else:
                self._names[path] = inode
        return True

    def _fsync(self, fd: int) -> None:
        if (path := self._fds.get(fd)) is None:
            return  # opened past `os`, and of no interest here
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            if not self._settle_names([name for name in self._changed if name.parent == path]):
                raise OSError(errno.EIO, "the disk fails")
            return
        inode = self._inodes[path]
        self._settle(inode)
        if inode.error:
            inode.error = False
            raise OSError(errno.EIO, "the disk fails")

    def _syncfs(self, _: int) -> int:
        self.write_back()
        told, self._told = self._told, True
        ctypes.set_errno(0 if told else errno.EIO)
        return 0 if told else -1

    def _followed(self, real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            note(result, *args)
            return result

        return call

    def _open(self, fd: int, path: Any, flags: int = 0, *_: Any) -> None:
        if Path(path).is_relative_to(self._root):
            self._fds[fd] = Path(path)
            if flags & os.O_CREAT:
                self._inodes[Path(path)] = self._changed[Path(path)] = Inode()

    def _close(self, _: None, fd: int) -> None:
        self._fds.pop(fd, None)

    def _write(self, count: int, fd: int, data: Any) -> None:
        self._writev(count, fd, [data])

    def _writev(self, count: int, fd: int, pieces: Any) -> None:
        if fd in self._fds:
            self._inodes[self._fds[fd]].pieces.append((count, None))

    def _rename(self, _: None, source: Any, target: Any) -> None:
        if (inode := self._inodes.pop(Path(source), None)) is not None:
            self._inodes[Path(target)] = self._changed[Path(target)] = inode
            self._changed[Path(source)] = None
            self._fds = {fd: Path(target) if path == Path(source) else path for fd, path in self._fds.items()}

    def _unlink(self, _: None, path: Any, **__: Any) -> None:
        if self._inodes.pop(Path(path), None) is not None:
            self._changed[Path(path)] = None
