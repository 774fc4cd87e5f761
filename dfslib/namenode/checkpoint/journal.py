"""What has been committed and not shipped yet. Filled by the engine's writer thread, emptied by the shipper."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from dfslib.namenode.checkpoint.format import Commit, commit_of, lineage_in, run_begun_in
from dfslib.namenode.checkpoint.recent import Recent
from dfslib.namenode.metadata.history import History, Lineage
from dfslib.namenode.namespace import keys
from dfslib.runtime.logs import event
from dfslib.wire.features import LevelNumber

log = logging.getLogger("dfs.checkpoint")

PENDING_MAX_BYTES: Final = 64 << 20
"""Kept in memory while no datanode takes it; past that the next thing to ship is a whole checkpoint."""

_FIRST_BYTES: Final = 1 << 20
"""Of a new cluster's first commits: of a store that was restored, as much as all of it may wait here."""


class Pending(NamedTuple):
    """Commits in order. `taken_ns`: all that was committed before then is in, unless `lost`. `head` is the last one,
    `before` the chain of the commit before the first one, empty where it is not known."""

    commits: list[Commit]
    taken_ns: int
    lost: bool
    head: Lineage | None
    before: bytes


class Journal:
    def __init__(self, wall_ns: Callable[[], int], recent: Recent) -> None:
        """`recent` keeps on disk what waits here, and what is shipped and has not arrived."""
        self._wall_ns = wall_ns
        self._recent = recent
        self._lock = threading.Lock()
        self._commits: list[Commit] = []
        self._bytes = 0
        self._lost = False
        self._last: int | None = None
        """The last commit's number, taken or not: the next one is one more."""
        self._before = b""
        """The chain of the last commit that was taken, empty where others were missed since."""

    def committed(self, number: int, writes: Mapping[bytes, bytes | None]) -> None:
        """For MetadataEngine.journal. A commit that is missed, or fails here, makes what waits `lost`: a journal with
        a gap would be taken for all that was committed."""
        with self._lock:
            missed, self._last = self._last is not None and number != self._last + 1, number
            if missed:
                log.error(event("commits were missed", until=number, action="making a whole checkpoint"))
                self._give_up()
            try:
                commit = commit_of(number, writes)
                self._recent.append(commit)
                if self._lost:
                    return
                self._commits.append(commit)
                self._bytes += sum(len(key) + len(value or b"") for key, value in writes.items())
            except BaseException:
                self._give_up()
                raise
            if self._bytes > PENDING_MAX_BYTES:
                self._give_up()

    def keep(self, cluster_id: str, epoch: int, level: LevelNumber, history: History) -> None:
        """The store is open, and this its history: from now on commits are kept beside it, and those of a new cluster
        that wait here. Raises OSError."""
        with self._lock:
            self._recent.begin(cluster_id, epoch, level, history)
            if self._commits and self._commits[0][0] == 1 and self._bytes <= _FIRST_BYTES:
                for commit in self._commits:
                    self._recent.append(commit)

    def copied(self, epoch: int, last: int) -> None:
        """A datanode has all commits up to this one. For a thread. Raises OSError."""
        self._recent.forget(epoch, last)

    def close(self) -> None:
        """Nothing is kept from now on."""
        self._recent.close()

    def _give_up(self) -> None:
        self._commits, self._bytes, self._lost = [], 0, True

    def take(self) -> Pending:
        """All that waits; it waits no more."""
        with self._lock:
            commits, self._commits = self._commits, []
            now_ns, before, lost = self._wall_ns(), self._before, self._lost
            head = lineage_in(commits[-1]) if commits else None
            if commits or lost:
                self._before = head.chain if head is not None and not lost else b""
            self._bytes, self._lost = 0, False
            self._recent.end_file()
        if commits and (run := run_begun_in(commits[0])) is not None:
            before = run.before
        return Pending(_without_passing(commits), now_ns, lost, head, before)


def _without_passing(commits: list[Commit]) -> list[Commit]:
    """The commits without the bytes of deferred blocks that have gone on to datanodes since: what is taken together
    is written and restored together, and most of them are here for a second only."""
    gone = {key for _, changes in commits for key, value in changes if value is None and key[:1] == keys.DEFERRED}
    if not gone:
        return commits
    return [
        (number, [(key, value) for key, value in changes if value is None or key not in gone])
        for number, changes in commits
    ]
