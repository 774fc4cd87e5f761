"""The locks that programs of this mount hold, so that a namenode that does not know them any more can be told. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dfslib.model import InodeId
from dfslib.mount.filesystem import Lock, LockKind, LockOwner


class Holder(NamedTuple):
    ino: InodeId
    owner: LockOwner
    flock: bool


class HeldLocks:
    def __init__(self) -> None:
        self._locks: dict[Holder, list[Lock]] = {}

    def set(self, holder: Holder, lock: Lock) -> None:
        """This lock was granted, or, with UNLOCK, given up."""
        kept: list[Lock] = []
        for old in self._locks.get(holder, []):
            if old.end < lock.start or lock.end < old.start:
                kept.append(old)
                continue
            if old.start < lock.start:
                kept.append(old._replace(end=lock.start - 1))
            if lock.end < old.end:
                kept.append(old._replace(start=lock.end + 1))
        if lock.kind is not LockKind.UNLOCK:
            kept.append(lock)
        if kept:
            self._locks[holder] = sorted(kept, key=lambda one: one.start)
        else:
            self._locks.pop(holder, None)

    def holds(self, holder: Holder) -> bool:
        return holder in self._locks

    def drop(self, holder: Holder) -> None:
        self._locks.pop(holder, None)

    def all(self) -> Iterator[tuple[Holder, Lock]]:
        for holder, locks in list(self._locks.items()):
            for lock in locks:
                yield holder, lock
