"""Locks of programs, kept by the namenode: fcntl(2) and flock(2) across mounts.

When they end, the kernel says for one kind only: a POSIX lock with the first close of any descriptor of its inode in
its process (FLUSH names the owner). A flock or an OFD lock belongs to an open file, and goes with its last close
(RELEASE, which names no owner of OFD locks). A request does not tell an OFD lock from a POSIX one, and need not: by the
time an open file is closed for good, every process that used it has closed it, so that no POSIX lock that was set
through it is left, and whatever is was the open file's own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from dfslib.errors import DfsError
from dfslib.model import InodeId
from dfslib.mount.filesystem import Handle, Lock, LockKind, LockOwner
from dfslib.mount.held_locks import HeldLocks, Holder
from dfslib.mount.session import Call, Session
from dfslib.runtime.logs import event
from dfslib.runtime.tasks import Tasks
from dfslib.wire import session as wire

log = logging.getLogger("dfs.locks")

_EVERYTHING: Final = Lock(LockKind.UNLOCK, 0, wire.LOCK_END, 0)


class Locks:
    def __init__(self, session: Session, tasks: Tasks) -> None:
        self._session = session
        self._tasks = tasks
        self._held = HeldLocks()
        self._through: dict[Handle, set[Holder]] = {}
        """Who may hold what was locked through an open file."""

    async def get(self, ino: InodeId, owner: LockOwner, lock: Lock) -> Lock | None:
        answer = await self._session.call(
            wire.GetLock(ino, owner, lock.kind is LockKind.WRITE, lock.start, lock.end)
        )
        assert isinstance(answer, wire.LockAnswer)
        if not answer.held:
            return None
        return Lock(LockKind.WRITE if answer.write else LockKind.READ, answer.start, answer.end, answer.pid)

    async def set(self, handle: Handle, holder: Holder, lock: Lock, *, wait: bool) -> None:
        """Raises WouldBlock, Deadlock. Cancelled while it waits, it leaves no lock behind."""
        if lock.kind is not LockKind.UNLOCK:
            self._through.setdefault(handle, set()).add(holder)
        seq, call = self._session.begin(_request(holder, lock, wait=wait), patient=wait)
        asking = asyncio.ensure_future(call)
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._tasks.spawn(self._take_back(holder, lock, asking, seq), "lock taken back")
            raise
        self._held.set(holder, lock)

    async def _take_back(
        self, holder: Holder, lock: Lock, asking: asyncio.Future[wire.Result], seq: int
    ) -> None:
        try:
            await self._session.call(wire.CancelLock(seq))
            await asking
        except DfsError:
            return  # not granted
        await self._session.call(_request(holder, lock._replace(kind=LockKind.UNLOCK), wait=False))

    async def closed(self, handle: Handle) -> None:
        """An open file is closed for good: what was locked through it, and is still, goes."""
        for holder in self._through.pop(handle, ()):
            # An owner's number may be another open file's by now, which has locked as well.
            if not any(holder in holders for holders in self._through.values()):
                await self.release(holder)

    async def release(self, holder: Holder) -> None:
        """Give up all that one owner holds of an inode."""
        if self._held.holds(holder):
            self._held.drop(holder)
            for holders in self._through.values():
                holders.discard(holder)
            await self._session.call(_request(holder, _EVERYTHING, wait=False))

    async def reclaim(self, call: Call) -> list[InodeId]:
        """Tell a namenode that has forgotten them of all locks; the inodes of those that somebody else has now."""
        lost: list[InodeId] = []
        for holder, lock in self._held.all():
            try:
                await call(_request(holder, lock, wait=False, reclaim=True))
            except DfsError as error:
                if error.retryable:
                    raise
                log.error(event("lock lost", inode=holder.ino, pid=lock.pid, reason=error))  # noqa: TRY400
                self._held.drop(holder)
                lost.append(holder.ino)
        return lost


def _request(holder: Holder, lock: Lock, *, wait: bool, reclaim: bool = False) -> wire.SetLock:
    return wire.SetLock(
        holder.ino, holder.owner, int(lock.kind), lock.start, lock.end, lock.pid, holder.flock, wait, reclaim
    )
