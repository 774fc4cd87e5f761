"""Appending to a new file, past the page cache where it becomes long.

A block of many megabytes is written with O_DIRECT from one aligned buffer: the kernel then neither finds
pages for it nor copies it once more, which was two thirds of a datanode's CPU time in a large upload, and
what others read stays cached. Short blocks go through the page cache, where they are likely read next.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Final

Bytes = bytes | bytearray | memoryview

_DIRECT_FROM_BYTES: Final = 4 << 20
_BUFFER_BYTES: Final = 1 << 20
"""A multiple of every disk's block; large enough that a disk is kept busy by one write at a time."""
_WRITEBACK_BYTES: Final = 8 << 20
"""The disk starts on every 8 MiB while the next arrive, so that the final fsync has little left to wait for."""
_SYNC_FILE_RANGE_WRITE: Final = 2
_IOV_MAX: Final = 512
"""Pieces in one writev; the kernel takes 1,024."""


class Appender:
    """Data in order to the end of a new file. Not for several threads at once. Raises OSError."""

    def __init__(self, fd: int, announced_bytes: int) -> None:
        """`announced_bytes`: how long the data becomes, or 0 where that is not known."""
        self._fd = fd
        self.size = 0
        """Bytes appended."""
        self._flushed = 0
        self._pending = 0
        self._buffer = _direct_buffer(fd) if announced_bytes >= _DIRECT_FROM_BYTES else None

    def append(self, pieces: Sequence[Bytes]) -> None:
        if self._buffer is None:
            self._append_cached(pieces)
            if self.size - self._flushed >= _WRITEBACK_BYTES:
                start_writeback(self._fd, self._flushed, self.size - self._flushed)
                self._flushed = self.size
            return
        for number, piece in enumerate(pieces):
            if not self._append_direct(memoryview(piece)):
                self._append_cached(pieces[number + 1 :])
                return

    def finish(self) -> None:
        """Write what the buffer still holds: no multiple of the disk's blocks, so through the page cache."""
        if self._buffer is not None:
            rest, self._buffer = self._buffer[: self._pending], None
            self.size -= self._pending
            fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~os.O_DIRECT)
            self._append_cached([rest])

    def _append_direct(self, view: memoryview) -> bool:
        """False where the file system turns out not to take direct writes: all of `view` is cached then."""
        while len(view) and self._buffer is not None:
            part = view[: _BUFFER_BYTES - self._pending]
            self._buffer[self._pending : self._pending + len(part)] = part
            self._pending += len(part)
            self.size += len(part)
            view = view[len(part) :]
            if self._pending == _BUFFER_BYTES:
                self._write_buffer()
        if len(view):
            self._append_cached([view])
        return self._buffer is not None

    def _write_buffer(self) -> None:
        assert self._buffer is not None
        try:
            written = os.write(self._fd, self._buffer)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.finish()
            return
        if written != _BUFFER_BYTES:  # a direct write is cut short by nothing but the disk's end
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._pending = 0

    def _append_cached(self, pieces: Sequence[Bytes]) -> None:
        views = [memoryview(piece) for piece in pieces if len(piece)]
        while views:
            count = os.writev(self._fd, views[:_IOV_MAX])
            self.size += count
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]


def _direct_buffer(fd: int) -> mmap.mmap | None:
    """A page-aligned buffer, with the file switched to direct writes; None where it does not take them."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        return None
    return mmap.mmap(-1, _BUFFER_BYTES)


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):  # not Linux
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


_sync_file_range: Final = _find_sync_file_range()


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Tell the disk to begin (sync_file_range(2)); `length` 0 is up to the end. A hint, where it exists:
    what fails here fails again in the fsync that counts."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)
