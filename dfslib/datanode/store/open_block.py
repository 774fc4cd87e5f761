"""Reading one block's file: its footer once, and then any range with its checksums checked.

Finding, sharing and closing open blocks is `block_store`'s.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from typing import Final

from dfslib.datanode.store.block_file import (
    BadBlock,
    Footer,
    aligned_range,
    check_slices,
    decode_footer,
    likely_ending,
)
from dfslib.errors import InputOutput
from dfslib.model import BlockId, format_block

CHECK_BYTES: Final = 512 << 10
"""Bytes read and checked at a time: what was copied is still in the core's cache for the checksum."""
_SCATTERED_BYTES: Final = 32 << 10
"""A read this short is of a reader who wants no more: those who read in order ask for more at a time."""
ROTTEN: Final = frozenset({errno.EIO, errno.EUCLEAN})
"""Errors of a read that say the disk lost the data, and not that the process lacks something."""

_local = threading.local()


class OpenBlock:
    """A block's file, open. Safe to read from several threads at once: nothing moves a file position.

    Every reading method raises BadBlock where the file does not hold what its checksums say, and InputOutput
    where the process cannot read for reasons of its own (out of memory).
    """

    def __init__(self, block: BlockId, path: Path) -> None:
        """Open and read the footer. Raises FileNotFoundError, BadBlock or OSError."""
        self.block = block
        try:
            self.file: Final = io.FileIO(path, "rb")
        except OSError as error:
            if error.errno in ROTTEN:
                raise BadBlock(f"the disk cannot open it: {error.strerror}") from error
            raise
        self.references = 0
        """Users at the moment; kept by the store under its lock."""
        self.cached = False
        self._reads_ahead = True
        try:
            self.footer: Final = self._read_footer()
        except BaseException:
            self.file.close()
            raise

    @property
    def size(self) -> int:
        return self.footer.size

    def is_whole(self) -> bool:
        """Whether the file still has a name and its length: what can be told without reading it. Does not wait
        for the disk."""
        status = os.fstat(self.file.fileno())
        return status.st_nlink > 0 and status.st_size == self._file_bytes

    def inode(self) -> int:
        """The file's own number, to tell it from another one that took its name meanwhile."""
        return os.fstat(self.file.fileno()).st_ino

    def check(self, start: int, end: int) -> None:
        """Read and check all slices that [start, end) touches, so that they may be sent with sendfile."""
        low, high = aligned_range(self.footer, start, end)
        buffer = _thread_buffer()
        for position in range(low, high, CHECK_BYTES):
            view = buffer[: min(CHECK_BYTES, high - position)]
            self._read_into(view, position)
            check_slices(self.footer, position, view)

    def read(self, start: int, end: int) -> bytes:
        """The checked bytes of [start, end)."""
        low, high = aligned_range(self.footer, start, end)
        buffer = _thread_buffer()
        if high - low <= CHECK_BYTES:
            view = buffer[: high - low]
            self._read_into(view, low)
            check_slices(self.footer, low, view)
            return bytes(view[start - low : end - low])
        data = bytearray(end - start)
        for position in range(low, high, CHECK_BYTES):
            view = buffer[: min(CHECK_BYTES, high - position)]
            self._read_into(view, position)
            check_slices(self.footer, position, view)
            first, last = max(start, position), min(end, position + len(view))
            data[first - start : last - start] = view[first - position : last - position]
        return bytes(data)

    def read_if_in_memory(self, start: int, end: int) -> bytes | None:
        """As `read`, or None where the disk would have to be waited for (preadv2(2), RWF_NOWAIT)."""
        low, high = aligned_range(self.footer, start, end)
        if high - low > CHECK_BYTES:
            return None
        view = _thread_buffer()[: high - low]
        self._advise(len(view))
        try:
            if os.preadv(self.file.fileno(), [view], low, os.RWF_NOWAIT) != len(view):
                return None
        except OSError:  # not in memory, or a file system that cannot tell: `read` finds out what is wrong
            return None
        check_slices(self.footer, low, view)
        return bytes(view[start - low : end - low])

    def will_need(self, start: int, end: int) -> None:
        """Have the disk read these bytes meanwhile: several such reads go on at a time."""
        low, high = aligned_range(self.footer, start, end)
        if low < high:
            self._advise(high - low)
            os.posix_fadvise(self.file.fileno(), low, high - low, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        self.file.close()

    def _read_into(self, view: memoryview, position: int) -> None:
        done = 0
        self._advise(len(view))
        try:
            while done < len(view):
                count = os.preadv(self.file.fileno(), [view[done:] if done else view], position + done)
                if not count:
                    raise BadBlock(f"the file ends at {position + done}")
                done += count
        except OSError as error:
            if error.errno in ROTTEN:
                raise BadBlock(f"the disk cannot read it at {position + done}: {error.strerror}") from error
            raise InputOutput(f"block {format_block(self.block)} cannot be read: {error}") from error

    def _advise(self, count: int) -> None:
        """Have the kernel read ahead for long reads only; it does for short ones, too, where it knows what is near."""
        reads_ahead = count > _SCATTERED_BYTES
        if reads_ahead is not self._reads_ahead:
            self._reads_ahead = reads_ahead
            advice = os.POSIX_FADV_NORMAL if reads_ahead else os.POSIX_FADV_RANDOM
            os.posix_fadvise(self.file.fileno(), 0, 0, advice)

    def _read_footer(self) -> Footer:
        size = self._file_bytes = os.fstat(self.file.fileno()).st_size
        wanted = likely_ending(size)
        while True:
            ending = bytearray(wanted)
            self._read_into(memoryview(ending), size - wanted)
            found = decode_footer(self.block, bytes(ending), size)
            if isinstance(found, Footer):
                return found
            wanted = found


def _thread_buffer() -> memoryview:
    """CHECK_BYTES of scratch memory of this thread: what is checked need not be kept."""
    view: memoryview | None = getattr(_local, "buffer", None)
    if view is None:
        view = _local.buffer = memoryview(bytearray(CHECK_BYTES))
    return view
