"""The scrubber: reads every block and every copy of metadata once in a while, and finds what has gone bad unread.

A pass goes through the directories of blocks in turn, compares each with the index, checks its files, and then
checks the copies of the metadata. It spreads its reading over the period, in a thread that comes last at the
disk, and remembers durably how far it came. What becomes of what it finds is the store's and its listener's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from dfslib.datanode.metrics import Metrics
from dfslib.datanode.pacing import Pace
from dfslib.datanode.store.block_check import new_buffer
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_index import DIRECTORIES
from dfslib.datanode.store.block_store import BlockStore
from dfslib.datanode.store.metadata_files import MetadataFiles
from dfslib.errors import InputOutput, NotFound
from dfslib.model import BlockId, format_block
from dfslib.runtime.durable_files import replace_file
from dfslib.runtime.logs import event
from dfslib.runtime.priority import give_way_at_disk

log = logging.getLogger("dfs.scrub")

_RATE_MIN: Final = 1 << 20
"""Bytes a second: a small volume is checked soon, which disturbs nobody."""
_RATE_MAX: Final = 64 << 20
"""Half of what an old disk reads: a pass that cannot keep its period at that takes longer."""
_FILE_COST: Final = 64 << 10
"""Bytes that a disk could read in the time it takes to open a file and find its beginning."""
_SAVE_EVERY_S: Final = 60.0
"""So much work is repeated after a crash, at most."""
_RETRY_S: Final = 60.0


class Place(msgspec.Struct, frozen=True):
    """How far the present pass has come: all of the directories before `directory`, and the blocks up to `after`
    in that one. Times in seconds since the epoch; `finished_s` is the last whole pass's end, or 0. `resting`: the
    pass that was begun has ended."""

    started_s: float
    finished_s: float = 0.0
    resting: bool = False
    directory: int = 0
    after: int = -1


@dataclass(frozen=True)
class Volume:
    """What is scrubbed, and where the place is kept."""

    store: BlockStore
    metadata: MetadataFiles
    place: Path


class _Stopped(Exception):
    """The datanode stops."""


class Scrubber:
    """`running` has it work in a thread of its own; tests call `run_once`."""

    def __init__(
        self,
        volume: Volume,
        every_s: float,
        metrics: Metrics,
        *,
        on_finished: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`on_finished` is called after each whole pass, from the thread."""
        self._store: Final = volume.store
        self._metadata: Final = volume.metadata
        self._path: Final = volume.place
        self._every_s: Final = every_s
        self._metrics: Final = metrics
        self._on_finished = on_finished
        self._now = now
        self._stop = threading.Event()
        self._pace = Pace(_RATE_MIN)
        self._buffer: Final = new_buffer()
        self._place = self._load()
        self._saved_s = time.monotonic()
        metrics.scrub_finished.set(self._place.finished_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        thread = threading.Thread(target=self.run_forever, name="scrub")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.to_thread(thread.join)

    def run_forever(self) -> None:
        """Pass after pass, each begun a period after the one before, until stopped."""
        give_way_at_disk()
        try:
            while True:
                if self._place.resting:
                    # The clock may have been set back since: then the wait is a period, and no longer.
                    self._pause(min(self._every_s, self._place.started_s + self._every_s - self._now()))
                    self._place = Place(self._now(), self._place.finished_s)
                try:
                    self.run_once()
                except Exception:
                    log.exception("scrubbing failed, and is tried again")
                    self._pause(_RETRY_S)
        except _Stopped:
            self._save()

    def run_once(self) -> None:
        """Finish the pass that was begun, from its place on. Raises _Stopped, and what stops the process from
        reading (not what is bad: that is found)."""
        while self._place.directory < DIRECTORIES:
            self._set_rate()
            self._check_directory(self._place.directory)
            self._advance(self._place.directory + 1, -1)
        for file in self._metadata.all():
            self._check_metadata(file.name)
        self._place = Place(self._place.started_s, self._now(), resting=True)
        self._save()
        self._metrics.scrub_finished.set(self._place.finished_s)
        usage = self._store.usage()
        log.info(event("all blocks were checked", blocks=usage.blocks, bytes=usage.used))
        self._on_finished()

    def _set_rate(self) -> None:
        """What is left of the volume, over what is left of the period."""
        usage = self._store.usage()
        left_bytes = (usage.used + usage.blocks * _FILE_COST) * (1 - self._place.directory / DIRECTORIES)
        left_s = max(1e-3, self._place.started_s + self._every_s - self._now())
        self._pace.bytes_per_s = min(_RATE_MAX, max(_RATE_MIN, left_bytes / left_s))

    def _check_directory(self, number: int) -> None:
        for block in self._store.compare(number):
            if block > self._place.after:
                self._check_block(block)
                self._advance(number, block)

    def _check_block(self, block: BlockId) -> None:
        self._pause(self._pace.delay_s(_FILE_COST))
        try:
            with self._store.checking(block, self._buffer) as check:
                while count := check.next():
                    self._metrics.scrubbed_bytes.inc(count)
                    self._pause(self._pace.delay_s(count))
        except NotFound:
            return  # deleted, or missed and told by the store
        except BadBlock:
            self._metrics.scrub_bad.inc()
        except InputOutput as error:  # the next pass tries again
            log.warning(event("block cannot be checked", block=format_block(block), reason=error))
            return
        self._metrics.scrubbed_blocks.inc()

    def _check_metadata(self, name: str) -> None:
        def paced(count: int) -> None:
            self._metrics.scrubbed_bytes.inc(count)
            self._pause(self._pace.delay_s(count))

        try:
            with self._metadata.opened(name) as opened:
                try:
                    opened.check(paced)
                finally:
                    opened.forget_pages()
        except NotFound:
            return
        except InputOutput:
            self._metrics.scrub_bad.inc()

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise _Stopped

    def _advance(self, directory: int, after: int) -> None:
        self._place = replace(self._place, directory=directory, after=after)
        if time.monotonic() - self._saved_s > _SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        try:
            replace_file(self._path, msgspec.json.encode(self._place) + b"\n")
        except OSError as error:  # a full disk: the place is only a convenience
            log.warning(event("the scrubber's place cannot be kept", path=self._path, reason=error))

    def _load(self) -> Place:
        try:
            place = msgspec.json.decode(self._path.read_bytes(), type=Place)
        except FileNotFoundError:
            return Place(self._now())
        except (OSError, msgspec.MsgspecError) as error:
            log.warning(event("the scrubber's place cannot be read", path=self._path, reason=error, action="anew"))
            return Place(self._now())
        return replace(place, started_s=min(place.started_s, self._now()), directory=max(0, place.directory))
