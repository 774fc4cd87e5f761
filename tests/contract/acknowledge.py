"""Run by test_metadata_engine.py: commits as fast as it can, and prints each number once it is durable."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine

WRITERS = 8


async def main(folder: Path) -> None:
    engine = LmdbEngine(folder)
    numbers = itertools.count()

    async def write() -> None:
        for number in numbers:

            def put(txn: Txn, number: int = number) -> None:
                txn.put(b"k%d" % number, b"v%d" % number)

            await engine.transact(put)
            print(number, flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(write())


asyncio.run(main(Path(sys.argv[1])))
