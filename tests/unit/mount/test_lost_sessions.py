"""A program appends while its mount loses session after session: every line is there once, and in its order."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dfslib.errors import ConditionFailed
from dfslib.model import ROOT
from dfslib.mount.filesystem import Caller, LockOwner
from dfslib.mount.session import Session
from dfslib.wire import session as wire
from tests.deadline import DEADLINE_S
from tests.unit.mount.in_process import InProcess

PROGRAM = Caller(0, 0, 7)
step = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 30)),
    st.tuples(st.just("append"), st.integers(1, 30)),
    st.tuples(st.just("seal")),
    st.tuples(st.just("seal")),
    st.tuples(st.just("turns"), st.integers(1, 60)),
    st.tuples(st.just("cut"), st.booleans()),
    st.tuples(st.just("cut"), st.booleans()),
    st.tuples(st.just("restart")),
)


def run(seed: int, work: Callable[[InProcess], Awaitable[None]]) -> None:
    """With one mount."""

    async def begin_and_end() -> None:
        namenode = InProcess(random.Random(seed))
        try:
            async with asyncio.timeout(DEADLINE_S):
                await namenode.start(1)
                await work(namenode)
        finally:
            await namenode.close()

    asyncio.run(begin_and_end())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(st.lists(step, min_size=10, max_size=40), st.integers(0, 1 << 20))
@example([("append", 5), ("seal",), ("turns", 12), ("cut", True)] * 8, 3)
def test_every_line_is_there_once(steps: list[Any], seed: int) -> None:
    async def work(namenode: InProcess) -> None:
        vfs, door = namenode.mounts[0], namenode.doors[0]
        attr, opened = await vfs.create(PROGRAM, ROOT, b"log", 0o644, os.O_WRONLY | os.O_APPEND)
        lines: list[bytes] = []
        for what, *arguments in steps:
            if what == "append":
                lines.append(b"%d:" % len(lines) + b"x" * arguments[0] + b"\n")
                await vfs.write(PROGRAM, opened.handle, 0, lines[-1], append=True)
            elif what == "seal":
                vfs._files.seal()
            elif what == "turns":
                for _ in range(arguments[0]):
                    await asyncio.sleep(0)
            elif what == "restart":
                await namenode.restart()
            else:
                await namenode.cut(0)
                if arguments[0]:
                    await namenode.give_up(0)
                door.is_open = True
        await vfs.fsync(opened.handle, data_only=True)
        assert namenode.content(attr.ino) == b"".join(lines)
        await vfs.flush(opened.handle, LockOwner(1))
        await vfs.release(opened.handle)

    run(seed, work)


def test_the_namenode_answers_alike_what_was_done_in_a_session_that_is_over() -> None:
    async def work(namenode: InProcess) -> None:
        vfs = namenode.mounts[0]
        attr, opened = await vfs.create(PROGRAM, ROOT, b"log", 0o644, os.O_RDWR)
        session: Session = vfs._session

        def line(data: bytes, *repeats: str, version: int = 0) -> wire.Write:
            return wire.Write(attr.ino, [wire.Piece(0, data)], True, repeats=list(repeats), version=version)

        seq, call = session.begin(line(b"one\n"))
        first = await call
        assert isinstance(first, wire.Attributes)
        old = f"{session._id}:{seq}"
        await namenode.cut(0)
        await namenode.give_up(0)
        namenode.doors[0].is_open = True
        seq, call = session.begin(line(b"one\n", "unknown:1", old))
        assert await call == first
        again = f"{session._id}:{seq}"
        assert await session.call(line(b"one\n", again)) == first, "it is known under its new name, too"
        assert namenode.content(attr.ino) == b"one\n"
        version = first.attr.version
        second = await session.call(line(b"two\n", "unknown:2", version=version))
        assert isinstance(second, wire.Attributes)
        assert second.offset == 4
        with pytest.raises(ConditionFailed):
            await session.call(line(b"two\n", "unknown:2", version=version))
        assert namenode.content(attr.ino) == b"one\ntwo\n"
        await vfs.release(opened.handle)

    run(1, work)
