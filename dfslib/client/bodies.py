"""Bodies of requests: bytes or binary files, sent in pieces, and sent again where that is possible.

A failure to read the source is told apart from a failure of the connection: it must neither be retried
nor end the body as if it were whole.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

PIECE_BYTES: Final = 256 << 10
"""Large enough that system calls cost nothing beside copying, small enough to stay in the CPU's cache."""

Data = bytes | bytearray | memoryview | BinaryIO
Sent = Callable[[int], None]


class SourceFailed(Exception):
    """The source could not be read. Not an OSError, which the HTTP library would take for the connection's."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(str(error))


class Body:
    """`data` from its present position on. `size` is None where it cannot be known before the end.

    `sent(n)` is called with the number of bytes of each piece that was handed over, and with a negative
    number when the body starts over. Raises TypeError for text.
    """

    def __init__(self, data: Data, sent: Sent | None = None, size: int | None = None) -> None:
        if isinstance(data, str) or not (isinstance(data, (bytes, bytearray, memoryview)) or hasattr(data, "read")):
            raise TypeError(f"a bytes-like object or a binary file is required, not {type(data).__name__!r}")
        self._sent = sent or (lambda _count: None)
        self._done = 0
        self._started = False
        self._view: memoryview | None = None
        self._file: BinaryIO | None = None
        self._start: int | None = None
        if isinstance(data, (bytes, bytearray, memoryview)):
            self._view = memoryview(data).cast("B") if len(data) else memoryview(b"")
            self.size: int | None = len(self._view)
            return
        self._file, self.size = data, size
        if _seekable(data):
            self._start = data.tell()
            if size is None:
                self.size = data.seek(0, io.SEEK_END) - self._start
                data.seek(self._start)

    @property
    def replayable(self) -> bool:
        """Whether the body could be sent a second time."""
        return self._file is None or self._start is not None

    def rewind(self) -> bool:
        """Go back to the start. False where bytes are gone for good."""
        if self._started and self._file is not None:
            if self._start is None:
                return False
            self._file.seek(self._start)
        if self._done:
            self._sent(-self._done)
        self._done, self._started = 0, False
        return True

    def __iter__(self) -> Iterator[memoryview | bytes]:
        self._started = True
        for piece in self._pieces():
            yield piece
            self._done += len(piece)
            self._sent(len(piece))

    def _pieces(self) -> Iterator[memoryview | bytes]:
        if self._view is not None:
            for start in range(0, len(self._view), PIECE_BYTES):
                yield self._view[start : start + PIECE_BYTES]
            return
        left = self.size
        while left is None or left > 0:
            piece = self._read(PIECE_BYTES if left is None else min(left, PIECE_BYTES))
            if not piece:
                break
            if left is not None:
                left -= len(piece)
            yield piece
        if left:
            raise SourceFailed(OSError(errno.EIO, f"the source ended {left} bytes before its announced size"))

    def _read(self, count: int) -> bytes:
        assert self._file is not None
        try:
            piece = self._file.read(count)
        except Exception as error:
            raise SourceFailed(error) from error
        if piece is None:
            raise SourceFailed(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            raise SourceFailed(TypeError(f"a binary file is required; read() gave {type(piece).__name__!r}"))
        return bytes(piece) if isinstance(piece, bytearray) else piece


def _seekable(file: BinaryIO) -> bool:
    seekable = getattr(file, "seekable", None)
    return bool(seekable and seekable())
