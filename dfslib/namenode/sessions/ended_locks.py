"""Locks of sessions that have ended, as long as nobody has had anything that stood against them. Pure.

A mount that was away for too long may have them again in its next session, if nobody could have relied on their being
gone. They count for nothing else.
"""

from __future__ import annotations

from typing import Final

from dfslib.namenode.sessions.locks import Held, Place

_MOST: Final = 1 << 16
"""Locks that are kept; the oldest ones are forgotten first, and count as lost then."""


class EndedLocks:
    def __init__(self) -> None:
        self._locks: dict[int, list[tuple[Place, Held]]] = {}
        """By their generation, the oldest first."""
        self._places: dict[Place, set[int]] = {}
        self._count = 0

    def add(self, generation: int, place: Place, lock: Held) -> None:
        self._locks.setdefault(generation, []).append((place, lock))
        self._places.setdefault(place, set()).add(generation)
        self._count += 1
        while self._count > _MOST:
            self._drop(next(iter(self._locks)))

    def overtaken(self, place: Place, by: Held) -> None:
        """Somebody has this lock now: generations of which a lock stood against it are gone for good."""
        for generation in list(self._places.get(place, ())):
            if any(at == place and lock.stands_against(by) for at, lock in self._locks[generation]):
                self._drop(generation)

    def may_claim(self, generation: int, place: Place, wanted: Held) -> bool:
        """Whether this was held, by the same owner within an ended session, and nobody had anything against it since.
        `generation`: 0 where the mount does not know it."""
        candidates = {generation} if generation else self._places.get(place, set())
        return any(
            at == place
            and lock.owner.number == wanted.owner.number
            and lock.write == wanted.write
            and lock.start <= wanted.start
            and wanted.end <= lock.end
            for candidate in candidates
            for at, lock in self._locks.get(candidate, ())
        )

    def _drop(self, generation: int) -> None:
        locks = self._locks.pop(generation)
        self._count -= len(locks)
        for place, _ in locks:
            generations = self._places.get(place, set())
            generations.discard(generation)
            if not generations:
                self._places.pop(place, None)
