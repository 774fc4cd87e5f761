"""Bodies that share a block, and what becomes of each of them."""

from __future__ import annotations

import asyncio
from typing import Any

from dfslib.errors import NoSpace
from dfslib.model import InodeId, Origin
from dfslib.namenode.files.operations import naming
from dfslib.namenode.files.pack import Packer
from dfslib.runtime.tasks import Tasks


class FullWriter:
    async def write(self, *_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise NoSpace("the datanodes are full")


def test_each_body_of_a_pack_that_fails_has_an_error_of_its_own() -> None:
    """Which says the name of its file, and not of another one."""

    async def store(packer: Packer, name: str) -> str:
        try:
            with naming(name):
                await packer.store(b"x", Origin(name.encode(), InodeId(0), 0, 1), 2)
        except NoSpace as error:
            return str(error)
        return "stored"

    async def run() -> None:
        tasks, writer = Tasks(), FullWriter()
        stand_in: Any = writer
        packer = Packer(stand_in, tasks)
        names = [f"/{number}" for number in range(4)]
        told = await asyncio.gather(*(store(packer, name) for name in names))
        assert told == [f"{name}: the datanodes are full" for name in names]
        await tasks.close()

    asyncio.run(run())
