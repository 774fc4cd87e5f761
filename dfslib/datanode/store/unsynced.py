"""Which blocks of a volume are not known to be on disk, and what a sync that fails means for them. Knows no files.

    published --its file and its name synced, or a sync of the whole volume--> synced
        | any sync on the volume fails: doubtful, and no sync makes it durable any more, since the kernel takes for
        v written what it could not write
    doubtful --written anew (volume_sync.py)--> synced
        | found bad, vanished, given up
        v
    lost, until the namenode has been told
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from dfslib.model import BlockId


class Unsynced:
    """For any thread; never waits for the disk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unsynced: set[BlockId] = set()
        self._doubtful: set[BlockId] = set()
        self._lost: set[BlockId] = set()
        self._confirmed: set[BlockId] | None = set()
        """Until a sync of the volume: the blocks that are known to be on disk all the same, whatever a process before
        this one has left. None after that."""
        self.is_failing = False
        """A sync has failed and none has succeeded since: what comes is to be synced at once."""

    def is_synced(self, block: BlockId) -> bool:
        """Whether a block that is here is known to be on disk."""
        with self._lock:
            return block not in self._unsynced and (self._confirmed is None or block in self._confirmed)

    @property
    def is_new(self) -> bool:
        """Whether what a process before this one has left may not be on disk."""
        return self._confirmed is not None

    def waiting(self) -> set[BlockId]:
        """Blocks that are on disk once a sync of the volume has succeeded that begins now."""
        with self._lock:
            return self._unsynced - self._doubtful

    def doubtful(self) -> set[BlockId]:
        """Blocks that are to be written anew."""
        with self._lock:
            return set(self._doubtful)

    def published(self, block: BlockId) -> None:
        with self._lock:
            self._unsynced.add(block)

    def confirmed(self, block: BlockId) -> None:
        """Its own file and name have been synced."""
        with self._lock:
            self._forget(block)
            if self._confirmed is not None:
                self._confirmed.add(block)

    def synced(self, blocks: Iterable[BlockId]) -> None:
        """A sync of the volume has succeeded that began when these were `waiting`: but for those in doubt since."""
        with self._lock:
            self._unsynced.difference_update(set(blocks) - self._doubtful)

    def checked(self) -> None:
        """What a process before this one has left is on disk, but for what is in doubt."""
        with self._lock:
            self._confirmed = None

    def doubt(self, blocks: Iterable[BlockId]) -> None:
        with self._lock:
            self._unsynced.update(blocks)
            self._doubtful.update(blocks)

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """Around a sync of whatever is on the volume: one that fails may be one of all that waits."""
        try:
            yield
        except OSError:
            with self._lock:
                self.is_failing = True
                self._doubtful.update(self._unsynced)
            raise
        self.is_failing = False

    def gone(self, block: BlockId) -> None:
        """It was deleted, and nobody counts on it."""
        with self._lock:
            self._forget(block)

    def lost(self, block: BlockId) -> None:
        """It is not here any more, and somebody may count on it."""
        with self._lock:
            if block in self._unsynced:
                self._lost.add(block)
            self._forget(block)

    def count_lost(self, is_told: Callable[[BlockId], bool]) -> int:
        """How many were lost before they were known to be on disk, but for those of which the namenode was told."""
        with self._lock:
            self._lost = {block for block in self._lost if not is_told(block)}
            return len(self._lost)

    def _forget(self, block: BlockId) -> None:
        self._unsynced.discard(block)
        self._doubtful.discard(block)
