"""Checking a block's file against the disk itself: past the page cache, piece by piece, footer and all."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import Final

from dfslib.datanode.store.block_file import BadBlock, Footer, check_slices, decode_footer, likely_ending
from dfslib.datanode.store.open_block import ROTTEN
from dfslib.errors import InputOutput
from dfslib.model import BlockId, format_block

PIECE_BYTES: Final = 1 << 20
"""Checked at a time; a multiple of the slices that have checksums."""
_ALIGN: Final = 4096
"""What direct reads have to be multiples of."""


def new_buffer() -> mmap.mmap:
    """Scratch memory for one check at a time; its pages are aligned, as direct reads need it."""
    return mmap.mmap(-1, PIECE_BYTES + 2 * _ALIGN)


class BlockCheck:
    """One file on its way through the checksums. What is cached of it stays so, what is not does not become so.

    Methods raise BadBlock where the file is not the block, and InputOutput where the process cannot read it.
    """

    def __init__(self, block: BlockId, path: Path, buffer: mmap.mmap) -> None:
        """Open the file and read its footer. Raises FileNotFoundError too."""
        self.block: Final = block
        self._buffer: Final = memoryview(buffer)
        self._fd = self._open(path)
        self._position = 0
        try:
            self._file_bytes: Final = os.fstat(self._fd).st_size
            self._footer: Final = self._read_footer()
        except BaseException:
            self.close()
            raise

    def next(self) -> int:
        """Check a piece; how many bytes it had, 0 when all are checked."""
        count = min(PIECE_BYTES, self._footer.size - self._position)
        if count:
            check_slices(self._footer, self._position, self._read(self._position, count))
            self._position += count
        return count

    def inode(self) -> int:
        """The file's own number, to tell it from another one that took its name meanwhile."""
        return os.fstat(self._fd).st_ino

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, path: Path) -> int:
        self._direct = True
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as error:
            if error.errno in ROTTEN:
                raise BadBlock(f"the disk cannot open it: {error.strerror}") from error
            if error.errno != errno.EINVAL:
                raise
        self._direct = False  # a file system in memory
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _read_footer(self) -> Footer:
        wanted = likely_ending(self._file_bytes)
        while True:
            if wanted > PIECE_BYTES:
                raise BadBlock("the footer is longer than any")
            ending = self._read(self._file_bytes - wanted, wanted)
            found = decode_footer(self.block, bytes(ending), self._file_bytes)
            if isinstance(found, Footer):
                return found
            wanted = found

    def _read(self, position: int, count: int) -> memoryview:
        """At most PIECE_BYTES; valid until the next call."""
        skip = position % _ALIGN
        end = -(-(skip + count) // _ALIGN) * _ALIGN
        done = 0
        while done < skip + count:
            got = self._pread(self._buffer[done:end], position - skip + done)
            if not got:
                raise BadBlock(f"the file ends at {position - skip + done}")
            done += got
        if not self._direct:
            os.posix_fadvise(self._fd, position - skip, end, os.POSIX_FADV_DONTNEED)
        return self._buffer[skip : skip + count]

    def _pread(self, view: memoryview, position: int) -> int:
        while True:
            try:
                return os.preadv(self._fd, [view], position)
            except OSError as error:
                if error.errno in ROTTEN:
                    raise BadBlock(f"the disk cannot read it at {position}: {error.strerror}") from error
                if error.errno != errno.EINVAL or not self._direct:
                    raise InputOutput(f"block {format_block(self.block)} cannot be read: {error}") from error
                # The disk wants another alignment, or the file system takes no direct reads after all.
                self._direct = False
                fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~os.O_DIRECT)
