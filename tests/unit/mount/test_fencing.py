"""Mounts that lock a file, are cut off and come back, with a namenode that is started again: each sees what who had the
lock before it left, and nobody who lost it changes anything."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dfslib.errors import DfsError, LockLost, Stale, WouldBlock
from dfslib.model import ROOT, InodeId
from dfslib.mount.filesystem import AttrUpdate, Caller, Handle, Lock, LockKind, LockOwner
from dfslib.mount.vfs import VFS
from dfslib.wire.session import LOCK_END, Forget
from tests.deadline import DEADLINE_S
from tests.unit.mount.in_process import InProcess

MOUNTS = 2
OWNER = LockOwner(1)
WHOLE, NONE = Lock(LockKind.WRITE, 0, LOCK_END, 7), Lock(LockKind.UNLOCK, 0, LOCK_END, 7)
PROGRAM = Caller(0, 0, 7)


class Program:
    """On one mount: it has the file open twice, and changes it only while it believes that it has the lock. `states`:
    the file after each of its changes since the last one that is sure."""

    def __init__(self, vfs: VFS, *, flock: bool) -> None:
        self.vfs = vfs
        self.flock = flock
        self.handles: list[Handle] = []
        self.locked = False
        self.away = False
        self.fenced = False
        """Whether somebody else had the lock while this one believed to have it."""
        self.knows = False
        """Whether it has been told of that."""
        self.states: list[bytes] = []

    async def open(self) -> None:
        while len(self.handles) < 2:
            attr = await self.vfs.lookup(PROGRAM, ROOT, b"f")
            try:
                self.handles.append((await self.vfs.open(PROGRAM, attr.ino, os.O_RDWR)).handle)
            except Stale:
                continue  # as the kernel does, which looks the name up again

    async def close(self) -> list[type[DfsError] | None]:
        found: list[type[DfsError] | None] = []
        for handle in self.handles:
            try:
                await self.vfs.flush(handle, OWNER)
                found.append(None)
            except DfsError as error:
                found.append(type(error))
            await self.vfs.release(handle)
        self.handles.clear()
        self.locked = self.fenced = self.knows = False
        return found

    async def set_lock(self, lock: Lock) -> None:
        await self.vfs.set_lock(self.handles[0], OWNER, lock, flock=self.flock, wait=False)


class World:
    def __init__(self, seed: int, *, flock: bool) -> None:
        self.namenode = InProcess(random.Random(seed))
        self.flock = flock
        self.ino = InodeId(0)
        self.last = b""
        """What the last one who had the lock left."""

    async def begin(self) -> None:
        await self.namenode.start(MOUNTS)
        first = self.namenode.mounts[0]
        attr, opened = await first.create(PROGRAM, ROOT, b"f", 0o644, os.O_RDWR)
        await first.release(opened.handle)
        self.ino = attr.ino
        self.programs = [Program(vfs, flock=self.flock) for vfs in self.namenode.mounts]
        for program in self.programs:
            await program.open()

    def holder(self) -> Program | None:
        return next((program for program in self.programs if program.locked and not program.fenced), None)

    async def lock(self, who: int) -> None:
        program = self.programs[who]
        if program.away or program.locked:
            return
        holder = self.holder()
        try:
            await program.set_lock(WHOLE)
        except WouldBlock:
            assert holder is not None
            return
        program.locked = True
        seen = await self.read(program)
        if holder is None:
            assert seen == self.last, "what was written under the lock is there for who has it next"
        else:
            assert holder.away, "two have the lock"
            holder.fenced = True
            assert seen in holder.states, "what is left of it is no beginning of what was written"
        self.last = seen
        program.states = [seen]

    async def read(self, program: Program) -> bytes:
        return b"".join(await program.vfs.read(program.handles[0], 0, 1000))

    async def write(self, who: int, through: int, offset: int, size: int, byte: int) -> None:
        program = self.programs[who]
        if not program.locked:
            return
        data = bytes([byte]) * size
        call = program.vfs.write(PROGRAM, program.handles[through], offset, data, append=False)
        if program.fenced and not program.knows:
            await call
            return
        await self.change(program, call)
        if not program.fenced:
            now = program.states[-1]
            program.states.append(now[:offset].ljust(offset, b"\0") + data + now[offset + size :])

    async def truncate(self, who: int, size: int) -> None:
        program = self.programs[who]
        if not program.locked or program.away:
            return  # it would wait
        update = AttrUpdate(size=size)
        await self.change(program, program.vfs.setattr(PROGRAM, self.ino, update, program.handles[0]))
        if not program.fenced:
            program.states = [program.states[-1][:size].ljust(size, b"\0")]

    async def change(self, program: Program, call: Any) -> None:
        try:
            await call
        except LockLost:
            assert program.fenced, "it has the lock"
        else:
            assert not program.fenced, "it lost the lock"

    async def fsync(self, who: int) -> None:
        program = self.programs[who]
        if program.locked and not program.away:
            await self.change(program, program.vfs.fsync(program.handles[1], data_only=True))
            program.states = program.states[-1:]

    async def seal(self, who: int) -> None:
        self.programs[who].vfs._files.seal()

    async def unlock(self, who: int, closing: bool) -> None:
        program = self.programs[who]
        if not program.locked or program.away:
            return
        if closing:
            fenced = program.fenced
            found = await program.close()
            assert found == ([LockLost] * 2 if fenced else [None] * 2)
            await program.open()
        elif program.fenced:
            await self.change(program, program.set_lock(NONE))
            return
        else:
            await program.set_lock(NONE)
            fenced, program.locked = False, False
        if not fenced:
            self.last = program.states[-1]

    async def cut(self, who: int) -> None:
        if not self.programs[who].away:
            await self.namenode.cut(who)
            self.programs[who].away = True

    async def lose(self, who: int) -> None:
        """For longer than the namenode waits for it."""
        await self.cut(who)
        await self.namenode.give_up(who)

    async def back(self, who: int) -> None:
        """It has said all that it has to say, and knows what has become of its locks."""
        if self.programs[who].away:
            self.namenode.doors[who].is_open = True
            await self.answers(self.programs[who])
            self.programs[who].away = False
            self.programs[who].knows = self.programs[who].fenced

    async def answers(self, program: Program) -> None:
        await program.vfs._session.call(Forget([]))

    async def restart(self) -> None:
        """Who is away then does not come back in time: nobody can know whether somebody else had its locks."""
        await self.namenode.restart()
        for number, program in enumerate(self.programs):
            if program.away:
                await self.namenode.give_up(number)
                if program.locked and not program.fenced:
                    program.fenced = True
                    self.last = self.namenode.content(self.ino)
                    assert self.last in program.states
        for program in self.programs:
            if not program.away:
                await self.answers(program)

    async def end(self) -> None:
        for number, program in enumerate(self.programs):
            await self.back(number)
            fenced = program.fenced
            if program.locked and not fenced:
                self.last = program.states[-1]
            assert await program.close() == ([LockLost] * 2 if fenced else [None] * 2)
        await self.check()

    async def check(self) -> None:
        holder = self.holder()
        if holder is not None and not holder.away:
            assert await self.read(holder) == holder.states[-1]
        allowed = holder.states if holder is not None else [self.last]
        assert self.namenode.content(self.ino) in allowed


who = st.integers(0, MOUNTS - 1)
write = st.tuples(
    st.just("write"), who, st.integers(0, 1), st.integers(0, 20), st.integers(1, 20), st.integers(1, 255)
)
step = st.one_of(
    st.tuples(st.just("lock"), who),
    st.tuples(st.just("lock"), who),
    write,
    write,
    write,
    st.tuples(st.just("truncate"), who, st.integers(0, 20)),
    st.tuples(st.just("fsync"), who),
    st.tuples(st.just("seal"), who),
    st.tuples(st.just("unlock"), who, st.booleans()),
    st.tuples(st.just("cut"), who),
    st.tuples(st.just("lose"), who),
    st.tuples(st.just("lose"), who),
    st.tuples(st.just("back"), who),
    st.tuples(st.just("restart")),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(st.lists(step, min_size=10, max_size=40), st.integers(0, 1 << 20), st.booleans())
@example([("lock", 0), ("lose", 0), ("lock", 1), ("unlock", 1, False), ("back", 0), ("write", 0, 0, 0, 1, 1)], 0, False)
@example(
    [("lock", 0), ("write", 0, 0, 0, 9, 1), ("lose", 0), ("lock", 1), ("write", 1, 0, 0, 5, 2),
     ("write", 0, 1, 3, 9, 3), ("back", 0), ("fsync", 0), ("write", 0, 0, 0, 1, 4), ("unlock", 1, True),
     ("unlock", 0, True), ("lock", 0)],
    0,
    False,
)  # fmt: skip
def test_who_has_the_lock_sees_what_was_left_and_who_lost_it_changes_nothing(
    steps: list[Any], seed: int, flock: bool
) -> None:
    async def run() -> None:
        world = World(seed, flock=flock)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await world.begin()
                for what, *arguments in steps:
                    await getattr(world, what)(*arguments)
                    await world.check()
                await world.end()
        finally:
            await world.namenode.close()

    asyncio.run(run())
