"""Who lost a lock changes nothing under it any more; who holds it, or gave it up, is not kept from anything."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfslib.errors import LockLost, WouldBlock
from dfslib.model import InodeId
from dfslib.namenode.sessions.ended_locks import EndedLocks
from dfslib.namenode.sessions.lock_generations import LockGenerations, new_session_id
from dfslib.namenode.sessions.lock_waits import LockWaits
from dfslib.namenode.sessions.locks import Held, Owner, Place
from dfslib.wire.session import SetLock

INO, OTHER = InodeId(5), InodeId(6)
PLACE = Place(INO, flock=False)


def test_a_session_keeps_its_generation_while_it_has_some_lock_on_the_inode() -> None:
    generations = LockGenerations(itertools.count(1).__next__)
    first = generations.granted("s", INO)
    assert generations.granted("s", INO) == first
    assert generations.granted("s", OTHER) > first
    generations.given_up("s", INO)
    assert generations.of("s", INO) == 0
    again = generations.granted("s", INO)
    assert again > first
    assert generations.admits("s", INO, first), "it was given up, not lost: it may still be on its way"
    assert generations.admits("s", INO, again)
    assert generations.admits("s", INO, 0), "who never had a lock"


def test_what_was_written_in_a_session_that_ended_is_refused_in_the_next_one_also_after_a_restart() -> None:
    count = itertools.count(1)
    generations = LockGenerations(count.__next__)
    old = new_session_id(next(count))
    lost = generations.granted(old, INO)
    generations.ended(old)
    new = new_session_id(next(count))
    assert not generations.admits(new, INO, lost)
    assert not LockGenerations(count.__next__).admits(new, INO, lost)
    held = generations.granted(new, INO)
    assert generations.admits(new, INO, held)
    assert not generations.admits(new, INO, lost)


def test_what_is_not_granted_again_after_a_restart_is_lost_with_all_that_was_granted_with_it() -> None:
    generations = LockGenerations(itertools.count(100).__next__)
    assert generations.claimed("s", INO, 7) == 7
    assert generations.admits("s", INO, 7)
    generations.lost("s", INO, 7)
    assert not generations.admits("s", INO, 7)
    assert not generations.admits("s", INO, 6)
    assert generations.admits("s", OTHER, 7)
    assert generations.admits("s", INO, generations.granted("s", INO))


def test_a_session_of_the_build_before_has_no_stamp_and_nothing_is_refused_to_it() -> None:
    generations = LockGenerations(itertools.count(100).__next__)
    assert generations.admits("0123456789abcdef0123456789abcdef", INO, 7)
    assert generations.claimed("0123456789abcdef0123456789abcdef", INO, 0) == 100


def lock(session: str, number: int = 1, *, write: bool = True, start: int = 0, end: int = 9) -> Held:
    return Held(Owner(session, number), write, start, end, 7)


def test_an_ended_lock_may_be_claimed_as_long_as_nobody_had_anything_against_it() -> None:
    ended = EndedLocks()
    ended.add(7, PLACE, lock("old"))
    ended.add(7, Place(OTHER, flock=True), lock("old"))
    ended.add(8, PLACE, lock("another", start=20, end=29))
    assert ended.may_claim(7, PLACE, lock("new"))
    assert ended.may_claim(7, PLACE, lock("new", start=3, end=5)), "a part"
    assert ended.may_claim(0, PLACE, lock("new")), "of a mount that knows no generations"
    assert not ended.may_claim(7, PLACE, lock("new", end=10)), "more than was held"
    assert not ended.may_claim(7, PLACE, lock("new", write=False)), "another kind"
    assert not ended.may_claim(7, PLACE, lock("new", 2)), "another owner"
    assert not ended.may_claim(8, PLACE, lock("new")), "another generation"
    ended.overtaken(PLACE, lock("x", write=False, start=9, end=15))
    assert not ended.may_claim(7, PLACE, lock("new", start=3, end=5)), "a generation is lost as a whole"
    assert not ended.may_claim(7, Place(OTHER, flock=True), lock("new"))
    assert ended.may_claim(8, PLACE, lock("new", start=20, end=29))


def test_no_more_ended_locks_are_kept_than_are_good_for_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfslib.namenode.sessions.ended_locks._MOST", 10)
    ended = EndedLocks()
    for generation in range(1, 31):
        ended.add(generation, Place(InodeId(generation), flock=False), lock("old"))
    kept = [one for one in range(1, 31) if ended.may_claim(one, Place(InodeId(one), flock=False), lock("new"))]
    assert kept == list(range(21, 31))
    assert len(ended._places) == 10


@pytest.mark.parametrize("first_comes_the_later_one", [False, True])
def test_of_two_that_say_they_had_a_lock_the_one_to_whom_it_was_granted_later_has_it(
    first_comes_the_later_one: bool,
) -> None:
    async def run() -> None:
        locks = LockWaits(itertools.count(100).__next__)

        async def claim(session: str, start: int, end: int, generation: int) -> int:
            request = SetLock(INO, 1, 1, start, end, reclaim=True, generation=generation)
            return await locks.acquire(session, 1, request, recovering=True)

        assert await claim("early", 20, 29, 7) == 7
        if first_comes_the_later_one:
            assert await claim("late", 0, 9, 8) == 8
            with pytest.raises(LockLost):
                await claim("early", 5, 12, 7)
        else:
            assert await claim("early", 5, 12, 7) == 7
            assert await claim("late", 0, 9, 8) == 8
        assert await claim("late", 0, 9, 8) == 8, "said twice"
        locks.check("late", INO, 8)
        for generation in (6, 7):
            with pytest.raises(LockLost):
                locks.check("early", INO, generation)
        locks.everybody_is_back()
        with pytest.raises(WouldBlock):
            await locks.acquire("another", 1, SetLock(INO, 1, 1, 0, 9))
        with pytest.raises(LockLost):
            await claim("another", 0, 9, 9)  # it is too late for that
        locks.check("early", INO, await locks.acquire("early", 1, SetLock(INO, 1, 1, 10, 19)))

    asyncio.run(run())


# Three mounts and a namenode that is started again, against what really happened to each generation.


class Mount:
    """`held`: its locks by their owner. `generation`: of them, 0 without any."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.away = False
        self.held: dict[int, Held] = {}
        self.generation = 0
        self.all: set[int] = set()
        self.granted: set[int] = set()
        """In this session."""


class World:
    def __init__(self) -> None:
        self.count = itertools.count(1)
        self.namenode = self.start()
        self.namenode.everybody_is_back()
        self.mounts = [Mount(new_session_id(next(self.count))) for _ in range(3)]
        self.overtaken: set[int] = set()
        self.forgotten: set[int] = set()
        """Of sessions that ended before the namenode was started: it cannot know whether anybody overtook them."""
        self.seq = itertools.count(1)

    def start(self) -> LockWaits:
        return LockWaits(self.count.__next__)

    async def ask(self, mount: Mount, lock: Held, kind: int, **more: Any) -> int:
        request = SetLock(INO, lock.owner.number, kind, lock.start, lock.end, **more)
        recovering = more.get("reclaim", False) and not mount.away
        return await self.namenode.acquire(mount.session, next(self.seq), request, recovering=recovering)

    async def lock(self, who: int, number: int, write: bool, start: int, end: int) -> None:
        mount, wanted = self.mounts[who], lock(self.mounts[who].session, number, write=write, start=start, end=end)
        if mount.away or number in mount.held:
            return
        stands = any(
            wanted.stands_against(one) for other in self.mounts if not other.away for one in other.held.values()
        )
        try:
            generation = await self.ask(mount, wanted, int(write))
        except WouldBlock:
            assert stands
            return
        assert not stands
        assert mount.generation in (0, generation)
        if not mount.generation:
            mount.all.add(generation)
            mount.granted.add(generation)
        mount.held[number], mount.generation = wanted, generation
        for other in self.mounts:  # only who is away may have had something against it
            if any(wanted.stands_against(one) for one in other.held.values()):
                self.overtaken.add(other.generation)

    async def unlock(self, who: int, number: int) -> None:
        mount = self.mounts[who]
        if not mount.away and number in mount.held:
            left = await self.ask(mount, mount.held.pop(number), 2)
            assert left == (mount.generation if mount.held else 0)
            if not mount.held:
                mount.generation = 0

    async def lose(self, who: int) -> None:
        """It is away for too long."""
        mount = self.mounts[who]
        if not mount.away:
            mount.away = True
            mount.granted.clear()
            self.namenode.drop_session(mount.session)

    async def back(self, who: int) -> None:
        mount = self.mounts[who]
        if mount.away:
            mount.session = new_session_id(next(self.count))
            claimed = await self.claim(mount)
            assert claimed == (not mount.held or mount.generation not in self.overtaken | self.forgotten)
            mount.away = False
            await self.settle(mount, claimed)

    async def restart(self, order: int) -> None:
        self.namenode = self.start()
        self.forgotten |= {mount.generation for mount in self.mounts if mount.away}
        there = [mount for mount in self.mounts if not mount.away]
        for mount in there[order % 3 :] + there[: order % 3]:
            claimed = await self.claim(mount)
            assert claimed, "nobody else could have had it"
        self.namenode.everybody_is_back()

    async def claim(self, mount: Mount) -> bool:
        for one in mount.held.values():
            try:
                generation = await self.ask(mount, one, int(one.write), reclaim=True, generation=mount.generation)
            except LockLost:
                return False
            assert generation == mount.generation
        return True

    async def settle(self, mount: Mount, claimed: bool) -> None:
        if claimed:
            for number, one in mount.held.items():
                mount.held[number] = one._replace(owner=Owner(mount.session, number))
            return
        self.overtaken.add(mount.generation)
        for one in mount.held.values():
            await self.ask(mount, one, 2)
        mount.held, mount.generation = {}, 0

    def check(self) -> None:
        for mount in self.mounts:
            if mount.away:
                continue
            for generation in mount.all:
                admitted = True
                try:
                    self.namenode.check(mount.session, INO, generation)
                except LockLost:
                    admitted = False
                if generation in self.overtaken:
                    assert not admitted, "it lost this lock to somebody"
                if generation == mount.generation or generation in mount.granted:
                    assert admitted, "it holds it, or has given it up"


who, number = st.integers(0, 2), st.integers(1, 2)
span = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(sorted)
step = st.one_of(
    st.tuples(st.just("lock"), who, number, st.booleans(), span),
    st.tuples(st.just("lock"), who, number, st.booleans(), span),
    st.tuples(st.just("unlock"), who, number),
    st.tuples(st.just("lose"), who),
    st.tuples(st.just("back"), who),
    st.tuples(st.just("restart"), who),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(step, min_size=5, max_size=40))
def test_what_is_refused_is_what_was_written_under_a_lock_that_somebody_else_may_have_had(steps: list[Any]) -> None:
    async def run() -> None:
        world = World()
        for what, *arguments in steps:
            await getattr(world, what)(*_flat(arguments))
            world.check()

    asyncio.run(run())


def _flat(arguments: list[Any]) -> Iterator[Any]:
    for one in arguments:
        if isinstance(one, list):
            yield from one
        else:
            yield one
