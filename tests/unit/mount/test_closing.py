"""Files that are closed while some of what was written is still on its way."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from dfslib.model import Attr, FileType, InodeId
from dfslib.mount.budget import Budget
from dfslib.mount.clock import Clock
from dfslib.mount.filesystem import Caller, Handle
from dfslib.mount.invalidations import Invalidations
from dfslib.mount.kernel_cache import KernelCache
from dfslib.mount.open_files import OpenFiles
from dfslib.mount.writer import Outlets
from dfslib.runtime.tasks import Tasks
from dfslib.wire import session as wire
from tests.deadline import DEADLINE_S
from tests.unit.mount.one_file import NoLocks

INO = InodeId(5)
PROGRAM = Caller(0, 0, 1)


class FakeSession:
    """Answers when it may; counts how often the file is open."""

    def __init__(self) -> None:
        self.may_write = asyncio.Event()
        self.opens = 0
        self.closed = asyncio.Event()
        self.written: list[bytes] = []

    async def call(self, operation: Any, *, patient: bool = False) -> wire.Result:
        await asyncio.sleep(0)
        match operation:
            case wire.Open():
                self.opens += 1
            case wire.Close(_, count):
                self.opens -= count
                if not self.opens:
                    self.closed.set()
                return wire.Done()
            case wire.Write():
                await self.may_write.wait()
                self.written.append(b"".join(piece.data for piece in operation.pieces))
        size = sum(map(len, self.written))
        return wire.Attributes(Attr(INO, FileType.FILE, 0o644, size=size), extents=[])


class Reader:
    def fetch_small(self, file: object) -> None:
        pass


def open_files(session: Any, tasks: Tasks) -> OpenFiles:
    clock = Clock(lambda: 1, lambda: 0.0)
    invalidations = Invalidations()
    kernel = KernelCache(tasks, clock.monotonic_s)
    reader: Any = Reader()
    files = OpenFiles(session, reader, invalidations, kernel, tasks, clock)
    budget = Budget(1 << 20, 60, files.seal, lambda used: None)
    datanodes: Any = None
    committed, off = files.committed, files.content_is_off
    files.use(Outlets(session, datanodes, budget, 60, clock, committed, off, NoLocks()))
    return files


async def write(files: OpenFiles, handle: Handle, offset: int, data: bytes) -> None:
    await files.write(PROGRAM, handle, offset, data, append=False, kill_privileges=False)


def test_each_descriptor_that_is_closed_is_told_to_the_namenode() -> None:
    """However many wait for the same bytes."""

    async def run() -> None:
        tasks, session = Tasks(), FakeSession()
        files = open_files(session, tasks)
        for turn in range(3):
            handle = (await files.open(INO, os.O_RDWR, kill_privileges=False))[1]
            if not turn:
                await write(files, handle, 0, b"on its way")
            files.release(handle)
            for _ in range(5):
                await asyncio.sleep(0)
        session.may_write.set()
        async with asyncio.timeout(DEADLINE_S):
            await session.closed.wait()
        assert session.written == [b"on its way"]
        await tasks.close()

    asyncio.run(run())
