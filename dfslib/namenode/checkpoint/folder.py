"""The files to be shipped, as they lie in a folder of the namenode's: made, described, and given up.

A datanode that lacks one is sent it from here. Losing them loses no metadata: they are made anew from the engine.
`write_journal` is for a thread, one file of each kind is written at a time; the rest is for the event loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from crc32c import crc32c

from dfslib.namenode.checkpoint.format import Commit, FileName, Header, name_of, write_journal
from dfslib.wire.positions import Position

_PIECE_BYTES: Final = 1 << 20


class Made(NamedTuple):
    """A file; `size` in bytes. `position`: what it leads to, where that is known. `time_ns`: its header's."""

    name: FileName
    size: int
    crc32c: int
    position: Position | None
    time_ns: int


class Folder:
    def __init__(self, path: Path) -> None:
        """`path` is this object's own."""
        self._path = path
        self.files: dict[FileName, Made] = {}

    def begin(self) -> None:
        """Make the folder; delete what an earlier process left in it. Raises OSError."""
        self._make()
        for path in self._path.iterdir():
            path.unlink()

    def _make(self) -> None:
        """It is moved away with a store that is set aside, and may be so at any time before that one is open."""
        self._path.mkdir(exist_ok=True)

    def path(self, name: FileName) -> Path:
        return self._path / str(name)

    def write_journal(self, header: Header, commits: Sequence[Commit]) -> Made:
        """Raises OSError; then nothing is left of it."""
        temporary = self._path / "journal"
        self._make()
        try:
            with temporary.open("wb") as file:
                write_journal(file, header, commits)
            return self._named(temporary, header)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    async def write_checkpoint(self, write: Callable[[Path], Awaitable[Header]]) -> Made:
        """What `write` writes to a path, under the name of the header that it returns. Raises what it raises, and
        OSError."""
        temporary = self._path / "checkpoint"
        self._make()
        try:
            header = await write(temporary)
            return await asyncio.to_thread(self._named, temporary, header)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def enter(self, made: Made) -> None:
        """It is to be shipped."""
        self.files[made.name] = made

    def keep_only(self, names: Iterable[FileName]) -> None:
        """Give up all other files."""
        for name in self.files.keys() - set(names):
            del self.files[name]
            self.path(name).unlink(missing_ok=True)

    def _named(self, temporary: Path, header: Header) -> Made:
        name = name_of(header)
        checksum = size = 0
        with temporary.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                checksum = crc32c(piece, checksum)
                size += len(piece)
        temporary.rename(self.path(name))
        return Made(name, size, checksum, header.position, header.time_ns)
