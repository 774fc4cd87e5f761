"""All blocks of a volume on disk, also those that came without a sync; and what to do where the disk fails at that.

The kernel tells once that something could not be written, not of which file, and takes it for written from then on:
what is read comes from memory, and the next sync succeeds for nothing. So after a sync that failed, each block that it
was to make durable is written anew from what the memory has, to a file of its own that is synced for itself. What
cannot be written for a minute is given up: it goes to the quarantine, and the namenode is told that it is lost here.

    sync-failed     there while blocks are to be written anew, for a process that comes after this one
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from dfslib.datanode.store.block_check import BlockCheck, new_buffer
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_store import BlockStore
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock
from dfslib.errors import DfsError, InputOutput, NotFound, Unavailable
from dfslib.model import BlockId, format_block
from dfslib.runtime.durable_files import FilesystemSync
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.store")

GIVE_UP_S: Final = 60.0
"""So long a disk has time to work again, as one behind a network does: meanwhile the memory has the blocks."""
_TURN_S: Final = 30.0
"""Whoever waits longer for its turn keeps a thread that others need."""
_PIECE_BYTES: Final = 1 << 20
_RECENT_NS: Final = 3600 * 10**9
"""What an earlier process wrote longer ago than this has been written by the kernel, which begins after 30 s."""


class VolumeSync:
    """For any thread; whoever comes while a sync is under way waits for the next one."""

    def __init__(
        self,
        store: BlockStore,
        root: Path,
        *,
        is_told: Callable[[BlockId], bool] = lambda block: True,
        monotonic: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`root` is the volume's. `is_told`: whether the namenode knows that a block is lost. Raises OSError."""
        self._store = store
        self._unsynced = store.unsynced
        self._is_told = is_told
        self._monotonic = monotonic
        self._turn = threading.Lock()
        self._filesystem = FilesystemSync(store.tmp)
        self._mark = root / "sync-failed"
        self._opened_ns = now_ns()
        self._failing_since_s: float | None = None

    def sync(self) -> None:
        """Make every block durable that was published before. Raises InputOutput where that fails, and as long as the
        namenode has not been told of what is lost by that, since it would take it for durable; Unavailable where others
        keep the disk busy for long."""
        if not self._turn.acquire(timeout=_TURN_S):
            raise Unavailable("the datanode's disk is still busy with another sync")
        try:
            if self._unsynced.is_new or self._unsynced.waiting():
                self._sync_all()
            if doubtful := self._unsynced.doubtful():
                self._note()
                self._write_anew(doubtful)
            self._failing_since_s = None
            self._mark.unlink(missing_ok=True)
            if count := self._unsynced.count_lost(self._is_told):
                raise InputOutput(f"{count} blocks were lost here before they were on disk")
        except OSError as error:
            raise InputOutput(f"the datanode's disk failed: {error}") from error
        finally:
            self._turn.release()

    def close(self) -> None:
        """Does nothing the second time."""
        self._filesystem.close()

    def _sync_all(self) -> None:
        blocks = self._unsynced.waiting()
        failed_before = self._unsynced.is_new and self._mark.exists()
        failed = False
        try:
            with self._unsynced.syncing():
                self._filesystem.sync()
            self._unsynced.synced(blocks)
        except OSError as error:
            failed = True
            log.error(event("sync failed", reason=error, unsynced=len(blocks), action="written anew"))  # noqa: TRY400
        if failed_before or (failed and self._unsynced.is_new):
            self._unsynced.doubt(self._not_on_disk())
        self._unsynced.checked()

    def _note(self) -> None:
        """Where it cannot be, the disk takes no writes, and the next process finds that out by itself."""
        try:
            self._mark.touch()
        except OSError as error:
            log.warning(event("failed sync cannot be noted", path=self._mark, reason=error))

    def _not_on_disk(self) -> list[BlockId]:
        """Blocks that were written shortly before this process began, and that the disk does not have as they are."""
        buffer = new_buffer()
        recent = self._store.recent(self._opened_ns - _RECENT_NS)
        return [block for block in recent if not _is_on_disk(block, self._store.path(block), buffer)]

    def _write_anew(self, blocks: Iterable[BlockId]) -> None:
        """Raises InputOutput where some cannot be."""
        failures: dict[BlockId, DfsError] = {}
        done = 0
        for block in blocks:
            try:
                self._write_one_anew(block)
                done += 1
            except NotFound:
                self._unsynced.gone(block)  # deleted; or found bad, of which the namenode is told
            except DfsError as error:
                if block in self._store:
                    failures[block] = error
        if done:
            log.warning(event("unsynced blocks written anew", count=done))
        if not failures:
            return
        now_s = self._monotonic()
        since_s = self._failing_since_s = now_s if self._failing_since_s is None else self._failing_since_s
        if now_s - since_s >= GIVE_UP_S:
            for block, failure in failures.items():
                self._store.give_up(block, failure)
        last = next(reversed(failures.values()))
        raise InputOutput(f"the datanode's disk failed, and {len(failures)} blocks are not on it: {last}")

    def _write_one_anew(self, block: BlockId) -> None:
        with self._store.writing(block) as intent:
            try:
                with self._store.opened(block) as opened:
                    footer = opened.footer
                    new = NewBlock(block, footer.origins, footer.crc32c, intent=intent)
                    writer = BlockWriter(self._store, new, footer.size)
                    try:
                        for start in range(0, footer.size, _PIECE_BYTES):
                            writer.write([opened.read(start, min(start + _PIECE_BYTES, footer.size))])
                        writer.finish()
                    finally:
                        writer.abort()  # does nothing after success
            except BadBlock as error:
                raise NotFound(f"block {format_block(block)} is bad: {error}") from error


def _is_on_disk(block: BlockId, path: Path, buffer: mmap.mmap) -> bool:
    try:
        check = BlockCheck(block, path, buffer)
    except FileNotFoundError:
        return True  # deleted since
    except (BadBlock, InputOutput, OSError):
        return False
    try:
        while check.next():
            pass
    except (BadBlock, InputOutput):
        return False
    finally:
        check.close()
    return True
