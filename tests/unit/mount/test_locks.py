"""Locks of a mount's programs: what is given up once what was written is with the namenode, and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dfslib.errors import DfsError, LockLost, NoSpace, SessionLost, Unavailable
from dfslib.model import InodeId
from dfslib.mount.filesystem import Handle, Lock, LockKind, LockOwner
from dfslib.mount.held_locks import HeldLocks, Holder
from dfslib.mount.locks import Locks
from dfslib.runtime.tasks import Tasks
from dfslib.wire import session as wire
from tests.deadline import DEADLINE_S

INO, OTHER = InodeId(5), InodeId(6)
HANDLE = Handle(1)
FIRST, SECOND = Holder(INO, LockOwner(1), False), Holder(INO, LockOwner(2), False)
ELSEWHERE = Holder(OTHER, LockOwner(1), True)


def write(start: int = 0, end: int = 9) -> Lock:
    return Lock(LockKind.WRITE, start, end, 7)


READ, NONE = Lock(LockKind.READ, 0, 9, 7), Lock(LockKind.UNLOCK, 0, 9, 7)


class Namenode:
    """Stands in for the session, for the content of open files, and for a namenode that says what it is told to."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.generation = 3
        self.hears = asyncio.Event()
        self.hears.set()
        self.failures: dict[int, DfsError] = {}
        """By the number of the request, from 0."""
        self.is_written = asyncio.Event()
        self.is_written.set()
        self.kernel_knows = asyncio.Event()
        self.kernel_knows.set()
        self.kernel_answers = True
        self.late = False
        self.fenced: list[InodeId] = []
        self.tasks = Tasks()
        session: Any = self
        self.locks = Locks(session, self, self.tasks, 0.05)

    def begin(self, operation: Any, *, patient: bool = False) -> tuple[int, Any]:
        return 1, self.call(operation)

    async def call(self, operation: Any, *, patient: bool = False) -> wire.Result:
        number = len(self.asked)
        self.asked.append(operation)
        await self.hears.wait()
        if number in self.failures:
            raise self.failures[number]
        return wire.Done(generation=self.generation)

    async def written(self, ino: InodeId) -> DfsError | None:
        if self.late:
            raise Unavailable
        await self.is_written.wait()
        return NoSpace()

    async def seen(self, ino: InodeId) -> bool:
        await self.kernel_knows.wait()
        return self.kernel_answers

    def fence(self, ino: InodeId) -> None:
        self.fenced.append(ino)

    def set(self, holder: Holder, lock: Lock) -> Awaitable[None]:
        return self.locks.set(HANDLE, holder, lock, wait=False)

    @property
    def kinds(self) -> list[int]:
        return [request.kind for request in self.asked]


def scenario(work: Callable[[Namenode], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        async def run() -> None:
            namenode = Namenode()
            async with asyncio.timeout(DEADLINE_S):
                await work(namenode)
            await namenode.tasks.close()

        asyncio.run(run())

    test.__name__ = work.__name__
    return test


async def rest() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("gives_up", [NONE, READ, Lock(LockKind.UNLOCK, 3, 4, 7)])
def test_a_lock_is_given_up_behind_what_was_written(gives_up: Lock) -> None:
    @scenario
    async def work(namenode: Namenode) -> None:
        await namenode.set(FIRST, write())
        namenode.is_written.clear()
        going = asyncio.ensure_future(namenode.set(FIRST, gives_up))
        await rest()
        assert len(namenode.asked) == 1
        assert namenode.locks.generation(INO) == 3
        namenode.is_written.set()
        await going
        assert namenode.kinds == [1, int(gives_up.kind)]

    work()


@scenario
async def test_a_lock_that_gives_up_nothing_waits_for_nothing(namenode: Namenode) -> None:
    namenode.late = True
    await namenode.set(FIRST, READ)
    await namenode.set(FIRST, write())
    await namenode.set(SECOND, READ)
    await namenode.set(Holder(INO, LockOwner(3), False), NONE)
    assert namenode.kinds == [0, 1, 0, 2]


@scenario
async def test_a_lock_is_had_once_the_kernel_knows_what_others_have_written(namenode: Namenode) -> None:
    namenode.kernel_knows.clear()
    locking = asyncio.ensure_future(namenode.set(FIRST, write()))
    await rest()
    assert not locking.done()
    assert namenode.locks.generation(INO) == 3, "it is held, and said to be where the namenode asks"
    namenode.kernel_knows.set()
    await locking


@scenario
async def test_a_lock_of_which_the_kernel_shows_what_was_before_is_refused_and_kept_until_the_close(
    namenode: Namenode,
) -> None:
    namenode.kernel_answers = False
    with pytest.raises(Unavailable):
        await namenode.set(FIRST, write())
    await namenode.locks.closed(HANDLE)
    assert namenode.kinds == [1, 2]


@scenario
async def test_who_is_interrupted_while_the_kernel_is_told_has_no_lock(namenode: Namenode) -> None:
    namenode.kernel_knows.clear()
    locking = asyncio.ensure_future(namenode.set(FIRST, write()))
    await rest()
    locking.cancel()
    await asyncio.wait([locking])
    namenode.kernel_knows.set()
    await rest()
    assert locking.cancelled()
    assert isinstance(namenode.asked[-1], wire.SetLock)
    assert namenode.asked[-1].kind == int(LockKind.UNLOCK)
    assert namenode.locks.generation(INO) == 0


@scenario
async def test_a_flock_that_is_converted_is_given_up_for_a_moment(namenode: Namenode) -> None:
    await namenode.set(ELSEWHERE, READ)
    namenode.late = True
    with pytest.raises(Unavailable):
        await namenode.set(ELSEWHERE, write())


@scenario
async def test_a_lock_stays_while_what_was_written_does_not_get_through(namenode: Namenode) -> None:
    await namenode.set(FIRST, write())
    namenode.late = True
    with pytest.raises(Unavailable):
        await namenode.set(FIRST, NONE)
    assert len(namenode.asked) == 1
    namenode.is_written.clear()
    namenode.late = False
    namenode.locks.release_later(FIRST)
    await rest()
    assert len(namenode.asked) == 1
    assert namenode.locks.generation(INO) == 3
    namenode.is_written.set()
    await rest()
    assert namenode.kinds == [1, 2]
    assert namenode.locks.generation(INO) == 0


@scenario
async def test_what_is_given_up_while_the_namenode_is_away_is_given_up_when_it_is_back(namenode: Namenode) -> None:
    await namenode.set(FIRST, write())
    await namenode.set(SECOND, write(20, 29))
    namenode.hears.clear()
    with pytest.raises(Unavailable):
        await namenode.set(FIRST, NONE)
    await namenode.locks.release(SECOND)  # a program that has ended waits for it no longer than that
    assert namenode.locks.generation(INO) == 0, "it is not claimed again"
    namenode.hears.set()
    await rest()
    assert namenode.kinds == [1, 1, 2, 2]


@scenario
async def test_a_lock_that_goes_with_its_session_need_not_be_given_up(namenode: Namenode) -> None:
    await namenode.set(FIRST, write())
    namenode.failures[1] = SessionLost()
    await namenode.set(FIRST, NONE)
    assert namenode.kinds == [1, 2]


@scenario
async def test_of_an_inode_that_is_lost_nothing_is_kept_and_of_the_others_all(namenode: Namenode) -> None:
    await namenode.set(FIRST, write())
    await namenode.set(SECOND, write(20, 29))
    await namenode.set(ELSEWHERE, write())
    namenode.asked.clear()
    namenode.failures[1] = LockLost()
    await namenode.locks.reclaim(namenode.call, lost=True)
    await rest()
    assert namenode.fenced == [INO]
    claims = [one for one in namenode.asked if one.reclaim]
    assert {one.generation for one in claims} == {3}
    assert [one.ino for one in claims] == [INO, INO, OTHER]
    given_up = [one for one in namenode.asked if not one.reclaim]
    assert {(one.ino, one.owner, one.kind) for one in given_up} == {(INO, 1, 2), (INO, 2, 2)}
    assert (namenode.locks.generation(INO), namenode.locks.generation(OTHER)) == (0, 3)


@scenario
async def test_a_claim_that_was_broken_off_in_a_lost_session_is_not_made_to_a_namenode_that_was_started_since(
    namenode: Namenode,
) -> None:
    """It does not know whether somebody else had the lock in between."""
    await namenode.set(FIRST, write())
    await namenode.set(ELSEWHERE, write())
    namenode.asked.clear()
    namenode.hears.clear()
    claiming = asyncio.ensure_future(namenode.locks.reclaim(namenode.call, lost=True))
    await rest()
    claiming.cancel()
    await asyncio.gather(claiming, return_exceptions=True)
    namenode.hears.set()
    namenode.asked.clear()
    await namenode.locks.reclaim(namenode.call, lost=False)
    assert [one for one in namenode.asked if one.reclaim] == []
    assert sorted(namenode.fenced) == [INO, OTHER]
    namenode.asked.clear()
    await namenode.locks.reclaim(namenode.call, lost=False)
    assert namenode.asked == []


@scenario
async def test_what_was_claimed_in_a_new_session_is_claimed_again_after_a_restart(namenode: Namenode) -> None:
    await namenode.set(FIRST, write())
    for lost in (True, False, True):
        await namenode.locks.reclaim(namenode.call, lost=lost)
    assert namenode.fenced == []
    assert namenode.kinds == [1, 1, 1, 1]


@scenario
async def test_with_a_namenode_that_tells_no_generations_locks_outlive_its_restart_and_no_lost_session(
    namenode: Namenode,
) -> None:
    namenode.generation = 0
    await namenode.set(FIRST, write())
    await namenode.locks.reclaim(namenode.call, lost=False)
    assert namenode.fenced == []
    await namenode.locks.reclaim(namenode.call, lost=True)
    assert namenode.fenced == [INO]


@scenario
async def test_what_the_namenode_refuses_is_lost_or_was_given_up(namenode: Namenode) -> None:
    await namenode.set(FIRST, write())
    await namenode.set(FIRST, NONE)
    assert not namenode.locks.refused(INO, 3), "given up: the same may be said again"
    namenode.generation = 4
    await namenode.set(FIRST, write())
    assert not namenode.locks.refused(INO, 3)
    assert namenode.locks.refused(INO, 4), "it is held, as far as is known here: it is lost"
    assert namenode.fenced == [INO]
    namenode.generation = 5
    await namenode.set(FIRST, write())
    assert namenode.locks.refused(INO, 4)
    assert namenode.fenced == [INO], "those who have opened it since are not concerned"


def test_generations_are_those_of_whoever_still_holds_something() -> None:
    held = HeldLocks()
    held.set(FIRST, write(), 3)
    held.set(SECOND, write(20, 29), 3)
    held.set(ELSEWHERE, write(), 4)
    held.drop(FIRST)
    assert (held.generation(INO), held.generation(OTHER)) == (3, 4)
    held.set(SECOND, Lock(LockKind.UNLOCK, 0, 100, 7))
    assert held.generation(INO) == 0
    assert held.inodes() == [OTHER]
    held.granted(INO, 5)
    assert held.generation(INO) == 0, "an answer that came late"
