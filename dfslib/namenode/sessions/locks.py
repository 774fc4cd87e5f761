"""Locks on files: byte ranges as fcntl(2) has them, and whole files as flock(2) has. Pure.

The two kinds never meet. An owner is a mount's session and a number that the mount gave; ranges are inclusive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dfslib.model import InodeId


class Owner(NamedTuple):
    session: str
    number: int


class Place(NamedTuple):
    """What locks of one kind meet on."""

    ino: InodeId
    flock: bool


class Held(NamedTuple):
    owner: Owner
    write: bool
    start: int
    end: int
    pid: int

    def stands_against(self, other: Held) -> bool:
        return (
            self.owner != other.owner
            and (self.write or other.write)
            and self.start <= other.end
            and other.start <= self.end
        )


class LockTable:
    def __init__(self) -> None:
        self._held: dict[Place, list[Held]] = {}

    def conflicts(self, place: Place, wanted: Held) -> Iterator[Held]:
        """The locks that are in the way, by their start."""
        return (held for held in self._held.get(place, []) if held.stands_against(wanted))

    def grant(self, place: Place, lock: Held) -> None:
        """The owner has this from now on, in the place of what it had in the range."""
        self._set(place, [*self._without(place, lock), lock])

    def release(self, place: Place, lock: Held) -> None:
        """The owner has nothing in the range any more."""
        self._set(place, self._without(place, lock))

    def has(self, place: Place, lock: Held) -> bool:
        """Whether the owner has all of this already, in one lock."""
        return any(
            held.owner == lock.owner
            and held.write == lock.write
            and held.start <= lock.start
            and lock.end <= held.end
            for held in self._held.get(place, [])
        )

    def has_any(self, session: str, ino: InodeId) -> bool:
        """Whether a session has any lock on an inode."""
        places = (Place(ino, flock) for flock in (False, True))
        return any(held.owner.session == session for place in places for held in self._held.get(place, []))

    def of_session(self, session: str) -> Iterator[tuple[Place, Held]]:
        return ((place, one) for place, held in self._held.items() for one in held if one.owner.session == session)

    def release_session(self, session: str) -> list[Place]:
        """Where it had locks."""
        places = [place for place, held in self._held.items() if any(one.owner.session == session for one in held)]
        for place in places:
            self._set(place, [one for one in self._held[place] if one.owner.session != session])
        return places

    def count(self, session: str) -> int:
        return sum(one.owner.session == session for held in self._held.values() for one in held)

    def _without(self, place: Place, lock: Held) -> list[Held]:
        kept: list[Held] = []
        for held in self._held.get(place, []):
            if held.owner != lock.owner or held.end < lock.start or lock.end < held.start:
                kept.append(held)
                continue
            if held.start < lock.start:
                kept.append(held._replace(end=lock.start - 1))
            if lock.end < held.end:
                kept.append(held._replace(start=lock.end + 1))
        return kept

    def _set(self, place: Place, held: list[Held]) -> None:
        if held:
            self._held[place] = _joined(held)
        else:
            self._held.pop(place, None)


def _joined(locks: list[Held]) -> list[Held]:
    """By start; neighbours of one owner and kind as one, so that their number is bounded by what differs."""
    result: list[Held] = []
    last: dict[tuple[Owner, bool], int] = {}
    for lock in sorted(locks, key=lambda one: one.start):
        key = (lock.owner, lock.write)
        index = last.get(key)
        if index is not None and result[index].end + 1 == lock.start:
            result[index] = result[index]._replace(end=lock.end)
        else:
            last[key] = len(result)
            result.append(lock)
    return result


def would_deadlock(waits: dict[Owner, set[Owner]], owner: Owner, blockers: set[Owner]) -> bool:
    """Whether some of `blockers` wait, directly or through others, for `owner`. `waits`: who waits for whom."""
    seen: set[Owner] = set()
    pending = list(blockers)
    while pending:
        one = pending.pop()
        if one == owner:
            return True
        if one not in seen:
            seen.add(one)
            pending.extend(waits.get(one, ()))
    return False
