"""Locks of all sessions: who came first is served first, who would wait for ever is told so, and who lost a lock does
not write under it any more (lock_generations.py)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from dfslib.errors import Deadlock, InvalidArgument, LockLost, WouldBlock
from dfslib.model import InodeId
from dfslib.namenode.sessions.ended_locks import EndedLocks
from dfslib.namenode.sessions.lock_generations import LockGenerations
from dfslib.namenode.sessions.locks import Held, LockTable, Owner, Place, would_deadlock
from dfslib.wire.session import LOCK_END, GetLock, LockAnswer, SetLock

_READ: Final = 0
_WRITE: Final = 1
_UNLOCK: Final = 2


class _Waiter:
    def __init__(self, seq: int, lock: Held) -> None:
        self.seq = seq
        self.lock = lock
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class LockWaits:
    """`next_generation`: see LockGenerations."""

    def __init__(self, next_generation: Callable[[], int]) -> None:
        self._table = LockTable()
        self._generations = LockGenerations(next_generation)
        self._ended = EndedLocks()
        self._waiters: dict[Place, deque[_Waiter]] = {}
        self._settled = asyncio.Event()
        self._given_up: set[tuple[str, int]] = set()
        """Requests that are to wait for nothing, and have not got so far."""

    def everybody_is_back(self) -> None:
        """After a start: whoever had locks has claimed them, or will not any more."""
        self._settled.set()

    def count(self, session: str) -> int:
        return self._table.count(session)

    async def get(self, session: str, request: GetLock) -> LockAnswer:
        wanted = Held(Owner(session, request.owner), request.write, *_range(request.start, request.end), 0)
        await self._settled.wait()
        for held in self._table.conflicts(Place(request.ino, flock=False), wanted):
            return LockAnswer(True, held.write, held.start, held.end, held.pid)
        return LockAnswer(False)

    def check(self, session: str, ino: InodeId, generation: int) -> None:
        """Raise LockLost where what the session has written in this generation must not be part of the inode any more.
        To be called from any thread."""
        if not self._generations.admits(session, ino, generation):
            raise LockLost

    async def acquire(self, session: str, seq: int, request: SetLock, *, recovering: bool = False) -> int:
        """The generation of the session's locks on the inode from then on, 0 without any. `recovering`: the session is
        from before a start of the namenode, and is saying what it had.

        Raises WouldBlock, Deadlock, InvalidArgument; LockLost where a lock that is claimed again is not to be had.
        """
        try:
            await self._acquire(session, seq, request, recovering)
        finally:
            self._given_up.discard((session, seq))
        return self._generations.of(session, request.ino)

    async def _acquire(self, session: str, seq: int, request: SetLock, recovering: bool) -> None:
        if request.kind not in (_READ, _WRITE, _UNLOCK):
            raise InvalidArgument(f"{request.kind} is no kind of lock")
        start, end = (0, LOCK_END) if request.flock else _range(request.start, request.end)
        lock = Held(Owner(session, request.owner), request.kind == _WRITE, start, end, request.pid)
        place = Place(request.ino, request.flock)
        if request.kind == _UNLOCK:
            self._release(place, lock)
            self._serve(place)
            return
        if request.reclaim:
            self._reclaim(place, lock, request.generation, recovering)
            return
        await self._settled.wait()
        blockers = {held.owner for held in self._table.conflicts(place, lock)}
        if not blockers:
            self._grant(place, lock)
            self._serve(place)  # a write lock may have become a read lock
            return
        if not request.wait or (session, seq) in self._given_up:
            raise WouldBlock
        if not request.flock and would_deadlock(self._who_waits(), lock.owner, blockers):
            raise Deadlock
        if request.flock:  # its conversion gives up what it had (flock(2))
            self._release(place, lock)
            self._serve(place)
        await self._wait(place, _Waiter(seq, lock))

    def _reclaim(self, place: Place, lock: Held, generation: int, recovering: bool) -> None:
        """What a session had before the namenode was started, it has again. What it had in a session that has ended
        meanwhile, it has if nobody had anything against it since."""
        session, ino = lock.owner.session, place.ino
        if not self._table.has(place, lock):  # else it is said again
            if recovering:
                self._overrule(place, lock, generation)
            free = not any(self._table.conflicts(place, lock))
            if not free or not (recovering or self._ended.may_claim(generation, place, lock)):
                self._generations.lost(session, ino, generation)
                raise LockLost
            self._table.grant(place, lock)
        self._generations.claimed(session, ino, generation)

    def _overrule(self, place: Place, lock: Held, generation: int) -> None:
        """Of two that say they had a lock, the one to whom it was granted later had it. The other one's session had
        ended; a copy of the metadata that was restored is from before that."""
        if self._settled.is_set():
            return
        for held in list(self._table.conflicts(place, lock)):
            session = held.owner.session
            if 0 < (older := self._generations.of(session, place.ino)) < generation:
                self._table.release(place, held)
                self._generations.lost(session, place.ino, older)

    def _grant(self, place: Place, lock: Held) -> None:
        self._table.grant(place, lock)
        self._generations.granted(lock.owner.session, place.ino)
        self._ended.overtaken(place, lock)

    def _release(self, place: Place, lock: Held) -> None:
        self._table.release(place, lock)
        if not self._table.has_any(lock.owner.session, place.ino):
            self._generations.given_up(lock.owner.session, place.ino)

    async def _wait(self, place: Place, waiter: _Waiter) -> None:
        self._waiters.setdefault(place, deque()).append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
                self._release(place, waiter.lock)
            self._forget(place, waiter)
            self._serve(place)
            raise

    def cancel(self, session: str, seq: int) -> None:
        """A request that is under way does not wait any longer; or not at all, where it has not begun to."""
        self._given_up.add((session, seq))
        for waiters in self._waiters.values():
            for waiter in waiters:
                if waiter.seq == seq and waiter.lock.owner.session == session and not waiter.granted.done():
                    waiter.granted.set_exception(WouldBlock())
        for place in list(self._waiters):
            self._drop_done(place)

    def drop_session(self, session: str) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                if waiter.lock.owner.session == session and not waiter.granted.done():
                    waiter.granted.set_exception(WouldBlock())
        for place, lock in self._table.of_session(session):
            if generation := self._generations.of(session, place.ino):
                self._ended.add(generation, place, lock)
        self._generations.ended(session)
        for place in {*self._table.release_session(session), *self._waiters}:
            self._drop_done(place)
            self._serve(place)

    def _serve(self, place: Place) -> None:
        """Grant what can be granted now, those who came first first."""
        for waiter in list(self._waiters.get(place, ())):
            if not waiter.granted.done() and not any(self._table.conflicts(place, waiter.lock)):
                self._grant(place, waiter.lock)
                waiter.granted.set_result(None)
        self._drop_done(place)

    def _drop_done(self, place: Place) -> None:
        waiters = deque(waiter for waiter in self._waiters.get(place, ()) if not waiter.granted.done())
        if waiters:
            self._waiters[place] = waiters
        else:
            self._waiters.pop(place, None)

    def _forget(self, place: Place, gone: _Waiter) -> None:
        waiters = deque(waiter for waiter in self._waiters.get(place, ()) if waiter is not gone)
        if waiters:
            self._waiters[place] = waiters
        else:
            self._waiters.pop(place, None)

    def _who_waits(self) -> dict[Owner, set[Owner]]:
        """Of those who wait for byte ranges: for whom."""
        waits: dict[Owner, set[Owner]] = {}
        for place, waiters in self._waiters.items():
            if not place.flock:
                for waiter in waiters:
                    blockers = {held.owner for held in self._table.conflicts(place, waiter.lock)}
                    waits.setdefault(waiter.lock.owner, set()).update(blockers)
        return waits


def _range(start: int, end: int) -> tuple[int, int]:
    if not 0 <= start <= end:
        raise InvalidArgument("a lock begins before it ends, and not below 0")
    return start, min(end, LOCK_END)
