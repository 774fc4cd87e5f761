"""The locks that programs of this mount hold, so that a namenode that does not know them any more can be told. Pure."""

from __future__ import annotations

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
        self._holders: dict[InodeId, set[Holder]] = {}
        self._generations: dict[InodeId, int] = {}

    def set(self, holder: Holder, lock: Lock, generation: int = 0) -> None:
        """This lock was granted, or, with UNLOCK, given up. `generation`: of the mount's locks on the inode, as the
        namenode told with the grant; 0 of one that tells none."""
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
        if not kept:
            self.drop(holder)
            return
        self._locks[holder] = sorted(kept, key=lambda one: one.start)
        self._holders.setdefault(holder.ino, set()).add(holder)
        self.granted(holder.ino, generation)

    def granted(self, ino: InodeId, generation: int) -> None:
        """Answers may come in another order than grants: the last generation counts."""
        if ino in self._holders:
            self._generations[ino] = max(self._generations.get(ino, 0), generation)

    def holds(self, holder: Holder) -> bool:
        return holder in self._locks

    def drop(self, holder: Holder) -> None:
        self._locks.pop(holder, None)
        holders = self._holders.get(holder.ino, set())
        holders.discard(holder)
        if not holders:
            self._holders.pop(holder.ino, None)
            self._generations.pop(holder.ino, None)

    def generation(self, ino: InodeId) -> int:
        """0 where nothing is held, or the namenode tells none."""
        return self._generations.get(ino, 0)

    def inodes(self) -> list[InodeId]:
        return list(self._holders)

    def of(self, ino: InodeId) -> list[tuple[Holder, Lock]]:
        return [(holder, lock) for holder in self._holders.get(ino, ()) for lock in self._locks[holder]]
