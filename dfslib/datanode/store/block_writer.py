"""Making a block durable in one visible order, one at a time or many with few waits for the disk.

1. a temporary file in tmp/, data in order, then the footer     a crash: tmp/ is emptied at start
2. fsync of the file                before the rename, else the name could appear before the data
3. rename to blocks/XX/ID           atomic: the block is whole or absent
4. fsync of blocks/XX               else the name may be gone after a power cut
5. only now is anyone told that the block is stored

Where step 2 or 4 fails the file is removed: the same sync may succeed the next time, with nothing on disk. Who stores
the same block meanwhile, or again, puts a file of its own in the place of one that is not known to be on disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dfslib.datanode.store.appender import Appender, Bytes, start_writeback
from dfslib.datanode.store.block_file import BadBlock, Checksums, Footer, encode_footer
from dfslib.datanode.store.block_store import BlockStore, WriteIntent
from dfslib.datanode.store.disk_errors import disk_errors
from dfslib.errors import ChecksumMismatch, DfsError, Exists, FileTooLarge, InputOutput, NotFound
from dfslib.model import BLOCK_SIZE, BlockId, Origin, format_block

_numbers = itertools.count()
"""Two writers of the same block have different temporary files."""


@dataclass(frozen=True)
class NewBlock:
    """What a block is to become. `expected_crc32c`: refuse other data. `cached`: it is going to be read soon,
    keep it in the page cache. `sync`: on disk before anyone is told; else it is with the store's next `sync`.
    `intent`: as `BlockStore.writing` gave it."""

    block: BlockId
    origins: list[Origin] = field(default_factory=list)
    expected_crc32c: int | None = None
    cached: bool = False
    sync: bool = True
    intent: WriteIntent | None = None


@dataclass(frozen=True)
class Stored:
    """What is there, durably unless that was not asked for. `created` is False where the block was there before."""

    block: BlockId
    size: int
    crc32c: int
    created: bool


class BlockWriter:
    """One block on its way to the disk. Calls may come from different threads; they take turns.

    `write` and then `finish`; or `abort`, at any time and from any thread. Raises NoSpace, InputOutput,
    FileTooLarge, ChecksumMismatch or Exists, after which the temporary file is gone.
    """

    def __init__(self, store: BlockStore, new: NewBlock, announced_bytes: int = 0) -> None:
        self._store = store
        self._new = new
        self._sums = Checksums()
        self._turn = threading.Lock()
        self.temporary: Final = store.tmp / f"{format_block(new.block)}.{next(_numbers)}"
        self._footer: Footer | None = None
        self._inode = 0
        self._change: int | None = None
        """Of `publish`, where our file has the name."""
        self._was_here = False
        self._fd = -1
        with disk_errors():
            store.require_space(announced_bytes)
            self._fd = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            self._file = Appender(self._fd, 0 if new.cached else announced_bytes)

    def write(self, pieces: Sequence[Bytes]) -> None:
        """Append data. Does nothing after `abort`."""
        with self._turn, self._aborting():
            if self._fd < 0:
                return
            size = sum(len(piece) for piece in pieces)
            if self._sums.size + size > BLOCK_SIZE:
                raise FileTooLarge(f"a block has at most {BLOCK_SIZE} bytes")
            self._store.require_space(size)
            for piece in pieces:
                self._sums.update(piece)
            self._file.append(pieces)

    def finish(self) -> Stored:
        """Make the block durable under its name."""
        with self._turn, self._aborting():
            self.seal()
            self.sync()
            stored = self.publish()
            self.confirm()
        return stored

    # The steps of `finish`, for those who take them for many blocks at once

    def seal(self) -> None:
        """Append the footer. Raises ChecksumMismatch where other data was announced."""
        expected = self._new.expected_crc32c
        if expected is not None and expected != self._sums.crc32c:
            raise ChecksumMismatch(
                f"block {format_block(self._new.block)} was announced with CRC32C {expected:08x} "
                f"and arrived with {self._sums.crc32c:08x}"
            )
        self._footer = self._sums.footer(self._new.block, self._new.origins, self._store.clock())
        self._file.finish()
        self._file.append([encode_footer(self._footer)])

    def start_sync(self) -> None:
        start_writeback(self._fd, 0, 0)

    def sync(self) -> None:
        if self._new.sync:
            with self._store.unsynced.syncing():
                os.fsync(self._fd)

    def publish(self) -> Stored:
        """Give the file its name. Raises Exists where another block of that name has other content."""
        assert self._footer is not None
        block, size = self._new.block, self._file.size
        self._inode = os.fstat(self._fd).st_ino
        same = False
        while (change := self._store.publish(
            block, self.temporary, size, self._new.intent, over_unsynced=same and self._new.sync
        )) is None:  # fmt: skip
            same = self._is_stored()
            if same and (not self._new.sync or self._store.unsynced.is_synced(block)):
                self.temporary.unlink()
                break
        self._change, self._was_here = change, same
        self._close()
        return Stored(block, self._footer.size, self._footer.crc32c, created=not same)

    def confirm(self) -> None:
        """Make the name durable, if the block is to be and was not before; else it is not here."""
        if self._new.sync and self._change is not None:
            self._store.confirm(self._new.block, self._inode, self._change, was_here=self._was_here)

    def abort(self) -> None:
        """Forget the block; does nothing once it has its name."""
        with self._turn:
            self._abort()

    def _abort(self) -> None:
        if self._fd >= 0:
            self._close()
            self.temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def _aborting(self) -> Iterator[None]:
        try:
            with disk_errors():
                yield
        except BaseException:
            self._abort()
            raise

    def _is_stored(self) -> bool:
        """Whether the block with our name has our content; False where it was bad and is gone now.

        Raises Exists where it is a good block with other content. Its data is read: what is about to be
        acknowledged must be there, and a repair may be the reason for writing it again.
        """
        footer = self._footer
        assert footer is not None
        try:
            with self._store.opened(footer.block) as old:
                if (old.footer.size, old.footer.crc32c) != (footer.size, footer.crc32c):
                    raise Exists(f"block {format_block(footer.block)} exists with other content")
                old.check(0, old.size)
        except NotFound:
            return False
        except BadBlock as error:
            if self._store.path(footer.block).exists():
                raise InputOutput(f"a bad file is in the way, and cannot be moved: {error}") from error
            return False
        self._store.keep(footer.block)
        return True


def write_batch(store: BlockStore, batch: Sequence[tuple[NewBlock, Bytes]]) -> list[Stored | DfsError]:
    """Store small blocks together, each as `BlockWriter` does; one that fails fails alone, but for a disk that fails to
    sync: that fails all of them.

    The disk is told of all files before the first is waited for, and each directory is synced once: in
    batches of 16 a file costs a quarter of the CPU time and half of the waiting that it costs alone.
    """
    results: dict[int, Stored | DfsError] = {}
    writers: dict[int, BlockWriter] = {}

    def each(step: Callable[[BlockWriter], Stored | None]) -> None:
        for index, writer in list(writers.items()):
            try:
                with disk_errors():
                    outcome = step(writer)
            except DfsError as error:
                writers.pop(index).abort()
                results[index] = error
            else:
                if outcome is not None:
                    results[index] = outcome

    for index, (new, data) in enumerate(batch):
        try:
            writer = BlockWriter(store, new, len(data))
            writer.write([data])
            writers[index] = writer
        except DfsError as error:
            results[index] = error
    each(BlockWriter.seal)
    if len(writers) > 1:
        each(BlockWriter.start_sync)  # for those without `sync`, too: there is less to wait for later
    try:
        with disk_errors():
            for writer in writers.values():
                writer.sync()
    except DfsError as error:
        for index, writer in writers.items():
            writer.abort()
            results[index] = error
        writers.clear()
    each(BlockWriter.publish)
    each(BlockWriter.confirm)  # the first one in a directory for all of them
    return [results[index] for index in range(len(batch))]
