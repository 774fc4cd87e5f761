"""Locks of programs, kept by the namenode: fcntl(2) and flock(2) across mounts.

When they end, the kernel says for one kind only: a POSIX lock with the first close of any descriptor of its inode in
its process (FLUSH names the owner). A flock or an OFD lock belongs to an open file, and goes with its last close
(RELEASE, which names no owner of OFD locks). A request does not tell an OFD lock from a POSIX one, and need not: by the
time an open file is closed for good, every process that used it has closed it, so that no POSIX lock that was set
through it is left, and whatever is was the open file's own.

What was written under a lock is committed before it is given up: who has it next sees that, and is not written over by
it. To see it, the kernel here has dropped what it knew from before when a lock is granted. A lock that is lost (the
mount was away for too long) takes along what was written and is not committed, and what has the file open is of no use
any more (open_files.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final, Protocol

from dfslib.errors import DfsError, LockLost, SessionLost, Unavailable
from dfslib.model import InodeId
from dfslib.mount.filesystem import Handle, Lock, LockKind, LockOwner
from dfslib.mount.held_locks import HeldLocks, Holder
from dfslib.mount.session import Call, Session
from dfslib.runtime.logs import event
from dfslib.runtime.tasks import Tasks
from dfslib.wire import session as wire

log = logging.getLogger("dfs.locks")

_EVERYTHING: Final = Lock(LockKind.UNLOCK, 0, wire.LOCK_END, 0)


class Content(Protocol):
    """Of open files, as far as locks are concerned."""

    async def written(self, ino: InodeId) -> DfsError | None:
        """What was written of it is committed or lost. Raises Unavailable where that takes too long."""
        ...

    async def seen(self, ino: InodeId) -> bool:
        """What others have changed of it up to now is what programs here see. False where that takes too long."""
        ...

    def fence(self, ino: InodeId) -> None:
        """A lock on it is lost."""
        ...


class Locks:
    """`timeout_s`: how long a program waits until the namenode has heard that it gives up a lock."""

    def __init__(self, session: Session, content: Content, tasks: Tasks, timeout_s: float) -> None:
        self._session = session
        self._content = content
        self._tasks = tasks
        self._timeout_s = timeout_s
        self._held = HeldLocks()
        self._through: dict[Handle, set[Holder]] = {}
        """Who may hold what was locked through an open file."""
        self._unsure: set[InodeId] = set()
        """Locked in a session that was lost, and not claimed in this one."""
        self._lost: set[int] = set()
        """Generations; one for each time that a mount is away for too long and somebody else wanted its lock."""

    def generation(self, ino: InodeId) -> int:
        """Under which what is written of it now is written (wire.Commit)."""
        return self._held.generation(ino)

    def refused(self, ino: InodeId, generation: int) -> bool:
        """The namenode has refused what was written in this generation: whether that is lost. Else it has been given up
        since, and the same is to be said again in the generation of now."""
        if self._held.generation(ino) == generation:
            self.lose(ino)
        return generation in self._lost

    async def get(self, ino: InodeId, owner: LockOwner, lock: Lock) -> Lock | None:
        answer = await self._session.call(
            wire.GetLock(ino, owner, lock.kind is LockKind.WRITE, lock.start, lock.end)
        )
        assert isinstance(answer, wire.LockAnswer)
        if not answer.held:
            return None
        return Lock(LockKind.WRITE if answer.write else LockKind.READ, answer.start, answer.end, answer.pid)

    async def set(self, handle: Handle, holder: Holder, lock: Lock, *, wait: bool) -> None:
        """Raises WouldBlock, Deadlock, Unavailable. Cancelled while it waits, it leaves no lock behind."""
        if self._held.holds(holder) and (lock.kind is not LockKind.WRITE or holder.flock):
            await self._content.written(holder.ino)  # it gives up some of what it has, if only for a moment: flock(2)
        if lock.kind is LockKind.UNLOCK:
            self._held.set(holder, lock)
            if not await self._tell(holder, lock):
                raise Unavailable("the namenode has not heard yet that the lock is given up")
            return
        self._through.setdefault(handle, set()).add(holder)
        seq, call = self._session.begin(_request(holder, lock, wait=wait), patient=wait)
        asking = asyncio.ensure_future(self._acquire(holder, lock, call))
        try:
            seen = await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._tasks.spawn(self._take_back(holder, lock, asking, seq), "lock taken back")
            raise
        if not seen:  # the lock is kept until the close: it may have been a part of what the program had already
            raise Unavailable("the kernel still has pages from before the lock was had")

    async def _acquire(self, holder: Holder, lock: Lock, call: Awaitable[wire.Result]) -> bool:
        """The namenode tells of what the last holder wrote before it grants. The kernel is told of that on another way
        than it is answered on: without waiting, the program could find the size and the pages from before."""
        answer = await call
        assert isinstance(answer, wire.Done)
        self._held.set(holder, lock, answer.generation)
        return await self._content.seen(holder.ino)

    async def _take_back(self, holder: Holder, lock: Lock, asking: asyncio.Future[bool], seq: int) -> None:
        try:
            await self._session.call(wire.CancelLock(seq), patient=True)
            await asking
        except DfsError:
            return  # not granted
        unlock = lock._replace(kind=LockKind.UNLOCK)
        self._held.set(holder, unlock)
        await self._give_up(holder, unlock)

    async def closed(self, handle: Handle) -> None:
        """An open file is closed for good: what was locked through it, and is still, goes."""
        for holder in self._through.pop(handle, ()):
            # An owner's number may be another open file's by now, which has locked as well.
            if not any(holder in holders for holders in self._through.values()):
                await self.release(holder)

    async def release(self, holder: Holder) -> None:
        """Give up all that one owner holds of an inode; later, where what was written takes too long."""
        if not self._held.holds(holder):
            return
        try:
            await self._content.written(holder.ino)
        except Unavailable:
            self.release_later(holder)
            return
        self._drop(holder)
        await self._tell(holder, _EVERYTHING)

    def release_later(self, holder: Holder) -> None:
        """Give up all that one owner holds of an inode, once what was written is not on its way any more."""
        if self._held.holds(holder):
            self._tasks.spawn(self._release_later(holder), "lock released later")

    async def _release_later(self, holder: Holder) -> None:
        while self._held.holds(holder):
            try:
                await self._content.written(holder.ino)
            except Unavailable as error:
                log.warning(event("lock kept for what is not written", inode=holder.ino, reason=error))
                continue
            self._drop(holder)
            await self._give_up(holder, _EVERYTHING)

    def _drop(self, holder: Holder) -> None:
        self._held.drop(holder)
        for holders in self._through.values():
            holders.discard(holder)

    async def _tell(self, holder: Holder, lock: Lock) -> bool:
        """The namenode is told that a lock is given up; False where it has not heard in time: it is going to."""
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def tell() -> None:
            try:
                await self._give_up(holder, lock)
            finally:
                heard.set_result(None)

        self._tasks.spawn(tell(), "lock given up")
        done, _ = await asyncio.wait([heard], timeout=self._timeout_s)
        return bool(done)

    async def _give_up(self, holder: Holder, lock: Lock) -> None:
        try:
            await self._session.call(_request(holder, lock, wait=False), patient=True)
        except SessionLost:
            pass  # it had the lock
        except DfsError as error:
            log.warning(event("lock not given up", inode=holder.ino, reason=error))

    # ------------------------------------------------------------------------------------------------- losses

    def lose(self, ino: InodeId) -> None:
        """A lock on it is somebody else's. All that programs here have locked of it goes with that, since nothing of
        what they have open is of use any more."""
        self._lost.add(self._held.generation(ino))
        holders = {holder for holder, _ in self._held.of(ino)}
        log.error(event("lock lost", inode=ino, holders=len(holders)))
        for holder in holders:
            self._drop(holder)
            self._tasks.spawn(self._give_up(holder, _EVERYTHING), "lock given up")
        self._unsure.discard(ino)
        self._content.fence(ino)

    async def reclaim(self, call: Call, *, lost: bool) -> None:
        """Tell a namenode that does not know them of all locks. `lost`: they were held in a session that has ended."""
        if lost:
            self._unsure.update(self._held.inodes())
        for ino in self._held.inodes():
            if self._may_claim(ino, lost=lost) and await self._claim(ino, call):
                self._unsure.discard(ino)
            else:
                self.lose(ino)

    def _may_claim(self, ino: InodeId, *, lost: bool) -> bool:
        """Whether the namenode can tell if somebody else has had it."""
        return ino not in self._unsure or (lost and self._held.generation(ino) > 0)

    async def _claim(self, ino: InodeId, call: Call) -> bool:
        generation = self._held.generation(ino)
        try:
            for holder, lock in self._held.of(ino):
                answer = await call(_request(holder, lock, wait=False, claimed=generation))
                assert isinstance(answer, wire.Done)
                self._held.granted(ino, answer.generation)
        except LockLost:
            return False
        except DfsError as error:
            log.warning(event("lock not claimed", inode=ino, reason=error))
            return False
        return True


def _request(holder: Holder, lock: Lock, *, wait: bool, claimed: int | None = None) -> wire.SetLock:
    """`claimed`: it was held before, in this generation."""
    return wire.SetLock(
        holder.ino,
        holder.owner,
        int(lock.kind),
        lock.start,
        lock.end,
        lock.pid,
        holder.flock,
        wait,
        claimed is not None,
        claimed or 0,
    )
