"""Copies of the namenode's metadata on a volume: whole files with names, checked whenever they are read.

    offset 0        the bytes
    the end         trailer, 28 bytes: magic, version of the format, number of the bytes, their CRC32C, and the
                    CRC32C of the trailer up to here

They are made durable as blocks are (block_writer): a temporary file, fsync, rename, fsync of the folder. What
the bytes mean is the namenode's. All methods wait for the disk and may be called from any thread.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crc32c import crc32c

from dfslib.datanode.store.appender import Appender, Bytes
from dfslib.datanode.store.disk_errors import disk_errors
from dfslib.datanode.store.open_block import ROTTEN
from dfslib.datanode.store.position import KeptPosition
from dfslib.errors import ChecksumMismatch, InputOutput, InvalidArgument, NotFound
from dfslib.runtime.durable_files import sync_directory
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.store")

PIECE_BYTES: Final = 1 << 20
"""Bytes read at a time."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
"""Names that are no path, sort alike everywhere, and leave room for a suffix in a file name."""
_MAGIC: Final = b"DFSmeta\n"
_VERSION: Final = 1
_TRAILER: Final = struct.Struct("<8sIQI")
_SUM: Final = struct.Struct("<I")
_TRAILER_BYTES: Final = _TRAILER.size + _SUM.size

_numbers = itertools.count()


class _Damaged(Exception):
    """The file is not what was stored; the message says why."""


@dataclass(frozen=True)
class MetadataFile:
    """`size` in bytes, without the trailer."""

    name: str
    size: int
    crc32c: int


def check_name(name: str) -> None:
    """Raise InvalidArgument unless `name` can be a file's."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument("a name has 1 to 128 of a-z, 0-9, '.' and '-', and begins with a letter or a digit", name)


class MetadataFiles:
    """The files below metadata/ of a volume."""

    def __init__(
        self,
        root: Path,
        require_space: Callable[[int], None],
        *,
        clock: Callable[[], int] = time.time_ns,
        on_bad: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`require_space` raises NoSpace unless so many more bytes fit. `on_bad` is told the name of every
        file that goes to the quarantine, from whichever thread found it."""
        self.require_space: Final = require_space
        self.tmp: Final = root / "tmp"
        self._folder: Final = root / "metadata"
        self._quarantine: Final = root / "quarantine"
        self._clock = clock
        self._on_bad = on_bad
        self.position: Final = KeptPosition(root, self._folder)
        self._names = threading.Lock()
        """Held while a name changes, so that looking and changing are one step."""

    def all(self) -> list[MetadataFile]:
        """All files that may be right, sorted by name; their bytes are not read. One that cannot be right goes
        to the quarantine. Raises InputOutput where the folder cannot be read."""
        found: list[MetadataFile] = []
        try:
            names = sorted(name for name in os.listdir(self._folder) if _NAME.fullmatch(name))  # noqa: PTH208
        except OSError as error:
            raise InputOutput(f"the copies of the metadata cannot be listed: {error}") from error
        for name in names:
            try:
                with self.opened(name) as opened:
                    found.append(opened.described)
            except NotFound:
                continue  # deleted while we look
            except InputOutput as error:
                log.warning(event("metadata file left out", name=name, reason=error))
        return found

    @contextmanager
    def opened(self, name: str) -> Iterator[OpenMetadataFile]:
        """As `open`, and closed at the end."""
        opened = self.open(name)
        try:
            yield opened
        finally:
            opened.close()

    def open(self, name: str) -> OpenMetadataFile:
        """Raises InvalidArgument, NotFound, or InputOutput, the latter after quarantine where it is damaged."""
        check_name(name)
        try:
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotFound("no such copy of metadata on this datanode", name) from None
        except OSError as error:
            raise InputOutput(f"the copy of metadata cannot be opened: {error}", name) from error
        try:
            with self.quarantining(name, fd):
                return OpenMetadataFile(self, fd, _read_trailer(name, fd))
        except BaseException:
            os.close(fd)
            raise

    def delete(self, name: str) -> bool:
        """Delete durably; False where it is not here. Raises InvalidArgument or InputOutput."""
        check_name(name)
        with self._names, disk_errors():
            try:
                (self._folder / name).unlink()
            except FileNotFoundError:
                return False
            sync_directory(self._folder)
            return True

    def publish(self, name: str, temporary: Path, position: str) -> bool:
        """Give a whole and synced file its name, durably, and remember the `position` that it leads to; whether there
        was none of that name. Raises OSError; there is none then, as it would be listed and may not be on disk."""
        with self._names:
            path = self._folder / name
            created = not path.exists()
            temporary.rename(path)
            try:
                sync_directory(self._folder)
            except OSError:
                path.unlink()
                raise
        self.position.brought(position)
        return created

    @contextmanager
    def quarantining(self, name: str, fd: int) -> Iterator[None]:
        """For those who read an open file: damage found meanwhile takes it out of use; raises InputOutput then."""
        try:
            try:
                yield
            except OSError as error:
                if error.errno in ROTTEN:
                    raise _Damaged(f"the disk cannot read it: {error.strerror}") from error
                raise InputOutput(f"the copy of metadata cannot be read: {error}", name) from error
        except _Damaged as error:
            self._to_quarantine(name, os.fstat(fd).st_ino, str(error))
            raise InputOutput(f"the copy of metadata is damaged: {error}", name) from error

    def _to_quarantine(self, name: str, inode: int, reason: str) -> None:
        path = self._folder / name
        kept = self._quarantine / f"metadata-{name}.{self._clock()}"
        with self._names:
            try:
                if path.stat().st_ino != inode:
                    return  # another file has taken its place already
                path.rename(kept)
            except FileNotFoundError:
                return  # another reader has found it first
            sync_directory(self._quarantine)
            sync_directory(self._folder)
        log.error(event("bad metadata file quarantined", name=name, reason=reason, kept=kept))
        self._on_bad(name)


class OpenMetadataFile:
    """A file that stays what it was when it was opened, even if its name is given to another one."""

    def __init__(self, files: MetadataFiles, fd: int, described: MetadataFile) -> None:
        self.described: Final = described
        self._files = files
        self._fd = fd
        self._turn = threading.Lock()
        """Nobody closes the file while a thread reads it."""

    def check(self, paced: Callable[[int], None] = lambda count: None) -> None:
        """Read all of it; raises InputOutput where it is damaged, after quarantine. `paced` is told the number
        of bytes after each piece."""
        for piece in self.pieces():
            paced(len(piece))

    def pieces(self) -> Iterator[bytes]:
        """The bytes in order, PIECE_BYTES at a time. The last piece comes only once all have turned out right:
        raises InputOutput instead of giving it, after quarantine."""
        position = total = 0
        while position < self.described.size:
            with self._turn, self._files.quarantining(self.described.name, self._fd):
                if self._fd < 0:
                    raise InputOutput("the file was closed while it was read", self.described.name)
                wanted = min(PIECE_BYTES, self.described.size - position)
                piece = _read_exactly(self._fd, position, wanted)
                position += wanted
                total = crc32c(piece, total)
                if position == self.described.size and total != self.described.crc32c:
                    raise _Damaged("its checksum does not match")
            yield piece

    def forget_pages(self) -> None:
        """Tell the kernel that nobody is going to read this soon (posix_fadvise(2))."""
        with self._turn:
            if self._fd >= 0:
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        with self._turn:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class MetadataWriter:
    """One file on its way to the disk: `write` and then `finish`, or `abort` at any time and from any thread.

    Raises InvalidArgument, NoSpace, InputOutput or ChecksumMismatch, after which the temporary file is gone.
    """

    def __init__(
        self, files: MetadataFiles, name: str, expected_crc32c: int, announced_bytes: int = 0, position: str = ""
    ) -> None:
        """`position`: what the file leads to (wire/positions.py), empty where that is not told."""
        check_name(name)
        self._files = files
        self._name = name
        self._expected = expected_crc32c
        self._position = position
        self._sum = 0
        self._turn = threading.Lock()
        # The prefix keeps it apart from the blocks' temporary files.
        self._temporary = files.tmp / f"metadata-{name}.{next(_numbers)}"
        self._fd = -1
        with disk_errors():
            files.require_space(announced_bytes)
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            self._file = Appender(self._fd, announced_bytes)

    def write(self, pieces: Sequence[Bytes]) -> None:
        """Append. Does nothing after `abort`."""
        with self._turn, self._aborting():
            if self._fd < 0:
                return
            self._files.require_space(sum(len(piece) for piece in pieces))
            for piece in pieces:
                self._sum = crc32c(piece, self._sum)
            self._file.append(pieces)

    def finish(self) -> tuple[MetadataFile, bool]:
        """Make it durable under its name, in place of what had it; whether nothing had."""
        with self._turn, self._aborting():
            if self._sum != self._expected:
                raise ChecksumMismatch(
                    f"announced with CRC32C {self._expected:08x}, arrived with {self._sum:08x}", self._name
                )
            self._file.finish()
            described = MetadataFile(self._name, self._file.size, self._sum)
            self._file.append([_encode_trailer(described)])
            # Before the rename: else the name could appear before the bytes after a power cut.
            os.fsync(self._fd)
            created = self._files.publish(self._name, self._temporary, self._position)
            self._close()
        return described, created

    def abort(self) -> None:
        """Forget the file; does nothing once it has its name."""
        with self._turn:
            self._abort()

    def _abort(self) -> None:
        if self._fd >= 0:
            self._close()
            self._temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        try:
            with disk_errors():
                yield
        except BaseException:
            self._abort()
            raise


def _encode_trailer(described: MetadataFile) -> bytes:
    body = _TRAILER.pack(_MAGIC, _VERSION, described.size, described.crc32c)
    return body + _SUM.pack(crc32c(body))


def _read_trailer(name: str, fd: int) -> MetadataFile:
    size = os.fstat(fd).st_size - _TRAILER_BYTES
    if size < 0:
        raise _Damaged("it is shorter than its trailer")
    ending = _read_exactly(fd, size, _TRAILER_BYTES)
    body = ending[: _TRAILER.size]
    magic, version, noted, checksum = _TRAILER.unpack(body)
    if magic != _MAGIC or _SUM.unpack(ending[_TRAILER.size :]) != (crc32c(body),):
        raise _Damaged("no trailer at its end")
    if version != _VERSION:
        raise _Damaged(f"format {version} is unknown")
    if noted != size:
        raise _Damaged(f"it has {size} bytes instead of {noted}")
    return MetadataFile(name, size, checksum)


def _read_exactly(fd: int, position: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = os.pread(fd, count, position)
        if not part:
            raise _Damaged(f"it ends at {position}")
        parts.append(part)
        position += len(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
