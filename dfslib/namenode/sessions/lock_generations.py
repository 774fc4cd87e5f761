"""Generations of locks: they tell what is written under a lock that is held from what was under a lost one. Pure.

A session that is granted its first lock on an inode is given a generation for it, a number above all that were given
before, and keeps it as long as it has some lock there. The mount says it with whatever changes the inode's content. It
is lost when the session ends, and when a lock of it that was held before the namenode was started is not granted again.
From then on what comes with it is refused, in whatever session. What was given up is not lost, and may still come; only
where it was given to an earlier session, the mount has to say again what it says, with the generation that it has now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import uuid4

from dfslib.model import InodeId

_RANDOM: Final = 32
"""Characters of a session's id before those that tell when it began."""


def new_session_id(stamp: int) -> str:
    """`stamp`: the number above which generations are going to be given. It is part of the id, so that it is known
    after a restart, too."""
    return f"{uuid4().hex}{stamp:016x}"


def _began(session: str) -> int:
    """Generations up to this one were not given to this session."""
    return int(session[_RANDOM:] or "0", 16)


class LockGenerations:
    """`next_number`: greater than all before, also those of namenodes before this one."""

    def __init__(self, next_number: Callable[[], int]) -> None:
        self._next_number = next_number
        self._held: dict[str, dict[InodeId, int]] = {}
        self._lost: dict[str, dict[InodeId, int]] = {}

    def of(self, session: str, ino: InodeId) -> int:
        """0 where it has no lock on the inode."""
        return self._held.get(session, {}).get(ino, 0)

    def granted(self, session: str, ino: InodeId) -> int:
        """It has a lock on the inode now: of which generation."""
        held = self._held.setdefault(session, {})
        if ino not in held:
            held[ino] = self._next_number()
        return held[ino]

    def claimed(self, session: str, ino: InodeId, generation: int) -> int:
        """It has a lock on the inode again that it had before, in this generation; 0: that nobody knows."""
        if generation:
            self._held.setdefault(session, {})[ino] = generation
        return self.granted(session, ino)

    def given_up(self, session: str, ino: InodeId) -> None:
        """It has no lock on the inode any more, because it wanted to."""
        held = self._held.get(session, {})
        held.pop(ino, None)
        if not held:
            self._held.pop(session, None)

    def lost(self, session: str, ino: InodeId, generation: int) -> None:
        """A lock of this generation is not going to be the session's again, nor the others that it had with it."""
        lost = self._lost.setdefault(session, {})
        lost[ino] = max(lost.get(ino, 0), generation)
        if self.of(session, ino) == generation:
            self.given_up(session, ino)

    def ended(self, session: str) -> None:
        self._held.pop(session, None)
        self._lost.pop(session, None)

    def admits(self, session: str, ino: InodeId, generation: int) -> bool:
        """Whether what the session has written in this generation may be part of the inode. 0: it had no lock.

        To be called from any thread.
        """
        if generation in (0, self.of(session, ino)):
            return True
        return generation > max(_began(session), self._lost.get(session, {}).get(ino, 0))
