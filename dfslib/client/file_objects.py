"""Files of DFS as Python's file objects: `open_file` is `open()` for them.

Reading asks for growing windows with Range requests, so that a program which reads on gets few large ones
and one which jumps about gets small ones. Writing collects in a temporary file; at close the content appears
at once, and on an exception inside `with`, or when the object is dropped unclosed, nothing is written. Nor is anything
after a write that failed, whether or not the caller heeded it: what it left behind is no content that was meant.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any, Final, cast

from dfslib.client import remote_paths
from dfslib.client.bodies import Body
from dfslib.client.content import PIECE_BYTES, Content
from dfslib.client.operations import Operations, WriteOptions
from dfslib.client.remote_paths import RemotePath

WINDOW_MIN_BYTES: Final = PIECE_BYTES
"""One piece: a whole answer is read at once, and its connection is free for the next jump."""
WINDOW_MAX_BYTES: Final = 64 << 20
BUFFER_BYTES: Final = 64 << 10
SPOOL_MEMORY_BYTES: Final = 8 << 20
"""Content up to this size never touches the local disk."""


def open_file(
    operations: Operations,
    path: RemotePath,
    mode: str = "r",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> IO[Any]:
    """`open()` for a file of DFS: modes r, w, x and a, each with b or t. See HttpNameNode.open."""
    kind, binary = _parse_mode(mode)
    if binary and (encoding is not None or errors is not None or newline is not None):
        raise ValueError("binary mode takes no encoding, errors or newline argument")
    if kind == "r":
        reader = io.BufferedReader(RemoteReader(operations, path), BUFFER_BYTES)
        return reader if binary else io.TextIOWrapper(reader, encoding or "utf-8", errors, newline)
    writer = RemoteWriter(operations, path, kind)
    if binary:
        return cast(IO[bytes], writer)
    return RemoteTextWriter(writer, encoding or "utf-8", errors, newline)


def _parse_mode(mode: str) -> tuple[str, bool]:
    kinds = [letter for letter in mode if letter in "rwxa"]
    if not set(mode) <= set("rwxabt+") or len(set(mode)) != len(mode) or len(kinds) != 1 or {"b", "t"} <= set(mode):
        raise ValueError(f"invalid mode: {mode!r}")
    if "+" in mode:
        raise io.UnsupportedOperation(f"mode {mode!r}: a file is read or written over HTTP, not both")
    return kinds[0], "b" in mode


class RemoteReader(io.RawIOBase):
    """A file's content, seekable. Always the same version: other content raises OSError(ESTALE)."""

    def __init__(self, operations: Operations, path: RemotePath) -> None:
        super().__init__()
        self.name = os.fspath(path)
        self.mode = "rb"
        self._content = Content(operations.transport, path)
        self._content.locate()
        self._position = 0
        self._pieces: Iterator[bytes] | None = None
        self._ahead = b""
        self._ahead_at = 0
        self._window_end = 0
        self._window = WINDOW_MIN_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check_open()
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        target = offset + (self._size() if base is None else base)
        if target < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.name)
        self._position = target
        return target

    def readinto(self, buffer: Any) -> int:
        self._check_open()
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        if not self._ahead_at <= self._position < self._ahead_at + len(self._ahead) and not self._fetch():
            return 0
        start = self._position - self._ahead_at
        count = min(len(view), len(self._ahead) - start)
        view[:count] = memoryview(self._ahead)[start : start + count]
        self._position += count
        return count

    def close(self) -> None:
        self._pieces, self._ahead = None, b""
        super().close()

    def _size(self) -> int:
        if self._content.size is None:
            self._fetch()
        return self._content.size or 0

    def _fetch(self) -> bool:
        """Have the piece that holds the position in `_ahead`. False at the end of the file."""
        size = self._content.size
        if size is not None and self._position >= size:
            return False
        follows = self._position == self._ahead_at + len(self._ahead)
        piece = next(self._pieces, b"") if follows and self._pieces is not None else b""
        if not piece:
            in_order = follows and self._position == self._window_end and self._position > 0
            self._window = min(self._window * 4, WINDOW_MAX_BYTES) if in_order else WINDOW_MIN_BYTES
            self._window_end = self._position + self._window
            self._pieces = self._content.pieces(self._position, self._window_end)
            piece = next(self._pieces, b"")
        self._ahead, self._ahead_at = piece, self._position
        return bool(piece)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class RemoteWriter(io.BufferedIOBase):
    """Content that is sent when it is closed. `kind`: w replaces, x makes a new file, a adds to the end.

    The first failure to collect it is raised by all that is called after it, `close` too, which then sends nothing.
    """

    def __init__(self, operations: Operations, path: RemotePath, kind: str) -> None:
        super().__init__()
        self.name = os.fspath(path)
        self.mode = f"{kind}b"
        self._operations = operations
        self._path = path
        self._kind = kind
        self._spool: IO[bytes] | None = None
        self._failure: OSError | None = None
        _check_writable(operations, path, exclusive=kind == "x")
        self._spool = tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES)  # noqa: SIM115  closed by close()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._kind != "a"

    def write(self, data: Any) -> int:
        if isinstance(data, str):
            raise TypeError("a bytes-like object is required, not 'str'")
        with self._collecting() as spool:
            return spool.write(data)

    def flush(self) -> None:
        """Raise what failed before; nothing is sent before `close`."""
        if self._spool is not None:
            self._check_failure()
        super().flush()

    def tell(self) -> int:
        with self._collecting() as spool:
            return spool.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._kind == "a":
            raise io.UnsupportedOperation("a file opened for appending is written at its end")
        with self._collecting() as spool:
            spool.seek(offset, whence)
            return spool.tell()

    def truncate(self, size: int | None = None) -> int:
        with self._collecting() as spool:
            size = spool.tell() if size is None else size
            spool.truncate(size)
            return size

    def discard(self) -> None:
        """Close without writing anything."""
        spool, self._spool = self._spool, None
        if spool is not None:
            with contextlib.suppress(OSError):  # what its buffer could not write is not wanted any more
                spool.close()
        super().close()

    def close(self) -> None:
        """Send the content. Raises what sending, or a write before it, raised; the file is as before then."""
        if self.closed or self._spool is None:
            return
        try:
            with self._collecting() as spool:
                spool.seek(0)
            self._send(spool)
        finally:
            self.discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        if not self.closed and self._spool is not None:
            self.discard()
            warnings.warn(f"unclosed file {self.name!r}: nothing was written", ResourceWarning, stacklevel=2)

    def _send(self, spool: IO[bytes]) -> None:
        body = Body(cast(Any, spool))
        if self._kind == "a":
            append_or_create(self._operations, self._path, body)
        else:
            self._operations.write(self._path, body, WriteOptions(exclusive=self._kind == "x"))

    @contextlib.contextmanager
    def _collecting(self) -> Iterator[IO[bytes]]:
        """The temporary file. Where what is done to it fails half-way, nothing is done to it any more."""
        if self._spool is None:
            raise ValueError("I/O operation on closed file")
        self._check_failure()
        try:
            yield self._spool
        except (TypeError, ValueError):  # an argument that was refused: nothing has changed
            raise
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None:
                self._failure = OSError(error.errno, error.strerror, self.name)
            else:
                self._failure = OSError(errno.EIO, f"a write before broke off: {error!r}", self.name)
            raise

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise OSError(*self._failure.args, self.name)


class RemoteTextWriter(io.TextIOWrapper):
    """Text on top of a RemoteWriter; an exception inside `with` reaches it."""

    def __init__(self, writer: RemoteWriter, encoding: str, errors: str | None, newline: str | None) -> None:
        super().__init__(cast(Any, writer), encoding, errors, newline)
        self._writer = writer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._writer.discard()
        else:
            self.close()

    def __del__(self) -> None:
        # TextIOWrapper would close the writer, and so write what is there
        if not self._writer.closed:
            self._writer.__del__()


def append_or_create(operations: Operations, path: RemotePath, body: Body) -> None:
    """Append, where the file is missing make it: as open(path, "a") does."""
    if not body.replayable:  # there is one attempt only
        with contextlib.suppress(FileExistsError):
            operations.write(path, Body(b""), WriteOptions(exclusive=True))
    while True:
        try:
            operations.append(path, body)
            return
        except FileNotFoundError:
            if not body.rewind():
                raise
        try:
            operations.write(path, body, WriteOptions(exclusive=True))
            return
        except FileExistsError:  # another client was quicker: there is something to append to now
            if not body.rewind():
                raise


def _check_writable(operations: Operations, path: RemotePath, *, exclusive: bool) -> None:
    """Raise now what a local open() would raise now, rather than at close."""
    filename = os.fspath(path)
    try:
        info = operations.attributes(path)
    except FileNotFoundError:
        try:
            above = operations.attributes(remote_paths.parent(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise OSError(error.errno, os.strerror(error.errno), filename) from error
            raise
        if not above.is_dir:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), filename) from None
        return
    if exclusive:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), filename)
    if info.is_dir:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), filename)
