"""Writing of one file while things fail: what is left is a beginning of what was written, and who wrote is told."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import deque
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dfslib.errors import (
    ChecksumMismatch,
    DfsError,
    FileTooLarge,
    InputOutput,
    NoSpace,
    NotEnoughDatanodes,
    NotFound,
    SessionLost,
    Unavailable,
)
from dfslib.mount import delivery, writer
from dfslib.mount.budget import Budget
from dfslib.mount.clock import Clock
from dfslib.mount.filesystem import KERNEL_PID, Caller, Handle
from dfslib.mount.invalidations import Invalidations
from dfslib.mount.kernel_cache import KernelCache
from dfslib.mount.open_files import OpenFiles
from dfslib.mount.reader import Reader
from dfslib.mount.writer import Outlets
from dfslib.runtime.tasks import Tasks
from dfslib.wire import session as wire
from tests.unit.mount.one_file import INO, NoLocks, OneFile

PROGRAM, KERNEL = Caller(0, 0, 7), Caller(0, 0, KERNEL_PID)
FLAGS = [os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND]
INLINE = 100
"""Bytes of a batch that go with its commit; here, so that files are small."""


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_RETRY_FIRST_S", 0)
    monkeypatch.setattr("dfslib.mount.batch.INLINE_MAX", INLINE)
    monkeypatch.setattr(writer, "_SEND_FROM", 4 * INLINE)
    monkeypatch.setattr(writer, "_BATCH_MAX", 8 * INLINE)


class Opened:
    """One file of a mount, open several times."""

    def __init__(
        self,
        place: OneFile,
        budget_bytes: int = 1 << 20,
        clock: Clock = Clock(time.time_ns, time.monotonic),  # noqa: B008
    ) -> None:
        self.place = place
        self.tasks = Tasks()
        invalidations = Invalidations()
        kernel = KernelCache(self.tasks, time.monotonic)
        session: Any = place
        self.files = OpenFiles(session, cast(Reader, None), invalidations, kernel, self.tasks, clock)
        self.budget = Budget(budget_bytes, 60.0, self.files.seal, lambda _: None)
        datanodes: Any = place
        committed, off = self.files.committed, self.files.content_is_off
        self.files.use(Outlets(session, datanodes, self.budget, 60.0, clock, committed, off, NoLocks()))
        self.handles: list[Handle] = []
        self.appends: list[bool] = []

    async def open(self, *flags: int) -> None:
        for one in flags:
            self.handles.append((await self.files.open(INO, one, kill_privileges=False))[1])
            self.appends.append(bool(one & os.O_APPEND))

    @property
    def losses(self) -> int:
        return self.files.get(self.handles[0]).file.losses

    @property
    def size(self) -> int:
        return self.files.present(self.place.attr).size

    async def write(self, number: int, offset: int, data: bytes, caller: Caller = PROGRAM) -> None:
        append = self.appends[number]
        await self.files.write(caller, self.handles[number], offset, data, append=append, kill_privileges=False)

    async def settle(self) -> None:
        await self.files.written(INO)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def close(self) -> None:
        for handle in self.handles:
            self.files.release(handle)
        await self.settle()
        assert self.budget.used_bytes == 0
        assert not self.place.granted, "blocks that are neither used nor given up"


FATAL = [NoSpace(), FileTooLarge(), NotFound()]
PASSING = [Unavailable(), NotEnoughDatanodes(), ChecksumMismatch(), InputOutput()]
fault = st.one_of(st.none(), st.sampled_from(FATAL), st.sampled_from(PASSING))
faults = st.fixed_dictionaries({
    what: st.lists(fault, min_size=3, max_size=6) for what in ("allocate", "put", "commit")
})
pace = st.lists(st.integers(0, 4), min_size=1, max_size=5)
handle = st.integers(0, len(FLAGS) - 1)
step = st.one_of(
    st.tuples(st.just("write"), handle, st.integers(0, 1500), st.sampled_from([1, 30, 90, 300, 900, 3000])),
    st.tuples(st.just("write"), handle, st.integers(0, 1500), st.sampled_from([1, 30, 90, 300, 900, 3000])),
    st.tuples(st.just("fsync"), handle),
    st.tuples(st.just("flush"), handle),
    st.tuples(st.just("seal")),
    st.tuples(st.just("turn"), st.integers(1, 8)),
    st.tuples(st.just("turn"), st.integers(1, 8)),
)


class Model:
    """`states`: the file after each write since all was known to be well, or to be lost. `untold`: of each handle,
    whether it is to be told of a loss."""

    def __init__(self, count: int) -> None:
        self.states = [b""]
        self.untold = [False] * count
        self.wrote = [False] * count

    def write(self, offset: int | None, data: bytes) -> None:
        last = self.states[-1]
        offset = len(last) if offset is None else offset
        self.states.append(last[:offset].ljust(offset, b"\0") + data + last[offset + len(data) :])

    def lost(self, left: bytes) -> None:
        assert left in self.states, "what is left is no beginning"
        self.states = [left]
        self.untold = [True] * len(self.untold)


@settings(max_examples=400, deadline=None)
@given(st.lists(step, min_size=6, max_size=40), faults, pace, st.booleans())
@example(
    [("write", 1, 0, 300), ("seal",), ("write", 1, 300, 30), ("seal",), ("turn", 8), ("write", 1, 330, 30)],
    {"allocate": [NoSpace()], "put": [], "commit": []},
    [1],
    False,
)
def test_what_is_left_is_a_beginning_and_who_wrote_is_told(
    steps: list[Any], faults: dict[str, list[DfsError | None]], pace: list[int], small: bool
) -> None:
    asyncio.run(_run(steps, faults, pace, 1000 if small else 1 << 20))


async def _run(
    steps: list[Any], faults: dict[str, list[DfsError | None]], pace: list[int], budget: int
) -> None:
    place = OneFile(pace)
    opened = Opened(place, budget)
    await opened.open(*FLAGS)
    place.faults = {what: deque(some) for what, some in faults.items()}
    model = Model(len(FLAGS))
    for number, one in enumerate(steps):
        losses = opened.losses
        error, was_untold = None, list(model.untold)
        try:
            await _do(opened, model, number, *one)
        except DfsError as raised:
            error = raised
        told = one[1] if one[0] in ("write", "fsync", "flush") else None
        if opened.losses != losses:
            await opened.settle()  # a batch before it may still be on its way
            model.lost(bytes(place.content))
        if told is not None:
            expected = (was_untold[told] or opened.losses != losses) and (one[0] != "flush" or model.wrote[told])
            assert (error is not None) == expected, one
            model.untold[told] &= error is None
        else:
            assert error is None
        if one[0] in ("fsync", "flush") and error is None and not any(model.untold):
            assert bytes(place.content) == model.states[-1]
            model.states = [model.states[-1]]
        assert opened.size == len(model.states[-1])
    losses = opened.losses
    await opened.settle()
    if opened.losses != losses:
        model.lost(bytes(place.content))
    assert bytes(place.content) == model.states[-1]
    await opened.close()


async def _do(opened: Opened, model: Model, number: int, what: str, *arguments: int) -> None:
    if what == "write":
        who, offset, size = arguments
        data = bytes([number % 255 + 1]) * size
        model.wrote[who] |= not model.untold[who]
        losses = opened.losses
        await opened.write(who, offset, data)
        assert opened.losses == losses, "it was taken behind something that is lost"
        model.write(None if FLAGS[who] & os.O_APPEND else offset, data)
    elif what == "fsync":
        await opened.files.fsync(opened.handles[arguments[0]])
    elif what == "flush":
        await opened.files.flush(opened.handles[arguments[0]])
    elif what == "seal":
        opened.files.seal()
    else:
        for _ in range(arguments[0]):
            await asyncio.sleep(0)


def test_a_later_batch_that_is_on_the_datanodes_already_is_given_up_with_the_one_before() -> None:
    async def run() -> None:
        place = OneFile()
        opened = Opened(place)
        await opened.open(os.O_RDWR)
        place.faults["put"] = deque([None, None])
        place.faults["commit"] = deque([NoSpace()])
        await opened.write(0, 0, b"a" * 500)  # sent by its size
        await opened.write(0, 500, b"b" * 500)
        await opened.settle()
        assert place.asked["put"] == 2
        assert place.asked["commit"] == 1, "what is behind it must not be committed"
        assert place.content == b""
        assert not place.used
        with pytest.raises(NoSpace):
            await opened.files.flush(opened.handles[0])
        await opened.write(0, 0, b"c" * 500)
        await opened.files.flush(opened.handles[0])
        assert place.content == b"c" * 500
        await opened.close()

    asyncio.run(run())


def test_everybody_who_waits_for_what_is_lost_is_told() -> None:
    async def run() -> None:
        place = OneFile([10])
        opened = Opened(place)
        await opened.open(os.O_RDWR, os.O_RDWR)
        place.faults["commit"] = deque([NoSpace()])
        await opened.write(0, 0, b"a")
        first, second = opened.handles
        syncs = [opened.files.fsync(one) for one in (first, first, second)]
        results = await asyncio.gather(*syncs, return_exceptions=True)
        assert [type(result) for result in results] == [NoSpace] * 3
        await asyncio.gather(*map(opened.files.fsync, opened.handles))
        await opened.close()

    asyncio.run(run())


def test_what_follows_a_loss_does_not_happen_until_who_wrote_knows() -> None:
    async def run() -> None:
        place = OneFile()
        opened = Opened(place)
        await opened.open(os.O_RDWR, os.O_RDWR)
        place.faults["commit"] = deque([NoSpace()])
        await opened.write(0, 0, b"a" * 50)
        with pytest.raises(NoSpace):
            await opened.files.before_changing(INO, None)
        assert not opened.files.settled
        with pytest.raises(NoSpace):
            await opened.files.before_changing(INO, None)
        await opened.files.flush(opened.handles[1])  # it wrote nothing
        with pytest.raises(NoSpace):
            await opened.files.before_changing(INO, opened.handles[0])
        assert opened.files.settled
        await opened.files.before_changing(INO, None)
        await opened.close()

    asyncio.run(run())


def test_a_page_that_the_kernel_writes_back_tells_nobody_in_the_place_of_its_program() -> None:
    async def run() -> None:
        place = OneFile()
        opened = Opened(place)
        await opened.open(os.O_RDWR)
        place.faults["commit"] = deque([NoSpace()])
        await opened.write(0, 0, b"a" * 50)
        opened.files.seal()
        await opened.settle()
        with pytest.raises(NoSpace):
            await opened.write(0, 50, b"page", KERNEL)
        with pytest.raises(NoSpace):
            await opened.files.fsync(opened.handles[0])
        await opened.files.fsync(opened.handles[0])
        await opened.close()
        assert place.content == b""

    asyncio.run(run())


def lost(request: str) -> SessionLost:
    return SessionLost(request=request)


async def append_in_a_lost_session(opened: Opened, line: bytes, *requests: str) -> None:
    """Its sessions are lost one after the other."""
    opened.place.faults["commit"] = deque(lost(request) for request in requests)
    await opened.write(0, 0, line)
    await opened.files.fsync(opened.handles[0])


def test_an_append_whose_outcome_nobody_knows_is_not_done_again() -> None:
    async def run() -> None:
        place = OneFile()
        opened = Opened(place)
        await opened.open(os.O_WRONLY | os.O_APPEND)
        with pytest.raises(InputOutput) as told:
            await append_in_a_lost_session(opened, b"line\n", "s:1")
        assert told.value.errno == errno.EIO
        assert place.asked["commit"] == 1
        await opened.close()

    asyncio.run(run())


@pytest.mark.parametrize("size", [5, 500])
@pytest.mark.parametrize("done", [None, "s1:7", "s2:9"])
def test_an_append_of_a_lost_session_is_there_once(size: int, done: str | None) -> None:
    async def run() -> None:
        place = OneFile()
        place.namenode_features = frozenset({"lost-requests"})
        opened = Opened(place)
        await opened.open(os.O_WRONLY | os.O_APPEND)
        line = b"x" * size
        if done is not None:
            place.content += line
            place.version += 1
            place.lost[done] = wire.Attributes(place.attr)
        await append_in_a_lost_session(opened, line, "s1:7", "s2:9")
        await opened.write(0, 0, b"next")
        await opened.files.fsync(opened.handles[0])
        assert place.content == line + b"next"
        assert [one.repeats for one in place.operations] == [[], ["s1:7"], ["s1:7", "s2:9"], []]
        assert {one.version for one in place.operations} == {0}
        await opened.close()

    asyncio.run(run())


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("clock", ["monotonic", "wall"])
def test_what_the_namenode_may_have_forgotten_is_done_again_only_if_the_file_is_as_it_was(
    changed: bool, clock: str
) -> None:
    async def run() -> None:
        passed_s = {"monotonic": 0.0, "wall": 0.0}
        place = OneFile()
        place.namenode_features = frozenset({"lost-requests"})
        opened = Opened(
            place,
            clock=Clock(lambda: 10**18 + int(passed_s["wall"] * 1e9), lambda: passed_s["monotonic"]),
        )
        await opened.open(os.O_WRONLY | os.O_APPEND)

        def later() -> None:
            passed_s[clock] += 3000
            place.version += changed

        place.when_asked = [later]
        before = place.version
        try:
            await append_in_a_lost_session(opened, b"line\n", "s:1")
        except InputOutput:
            assert changed
            assert place.content == b""
        else:
            assert not changed
            assert place.content == b"line\n"
        assert [one.version for one in place.operations] == [0, before]
        await opened.close()

    asyncio.run(run())


def test_a_write_elsewhere_is_done_again_when_its_session_is_lost() -> None:
    async def run() -> None:
        place = OneFile()
        opened = Opened(place)
        await opened.open(os.O_RDWR)
        place.faults["commit"] = deque([SessionLost(), Unavailable()])
        await opened.write(0, 0, b"x" * 500)
        await opened.files.fsync(opened.handles[0])
        assert place.content == b"x" * 500
        await opened.close()

    asyncio.run(run())


def test_a_sync_that_fails_is_one_for_all_who_wait_for_it() -> None:
    async def run() -> None:
        place = OneFile([5])
        opened = Opened(place)
        await opened.open(os.O_RDWR, os.O_RDWR)
        place.faults["sync"] = deque([Unavailable(), Unavailable()])
        await opened.write(0, 0, b"x" * 500)
        results = await asyncio.gather(*map(opened.files.fsync, opened.handles), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 2
        await opened.files.fsync(opened.handles[0])
        asked = place.asked["sync"]
        await opened.files.fsync(opened.handles[1])
        assert place.asked["sync"] == asked, "all is synced by now"
        await opened.close()

    asyncio.run(run())
