"""The memory engine with a chance: what it leaves open is decided by its seed, and is as open as with a thread and a
disk. What every engine promises is asked of it in tests/contract."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.memory_engine import MemoryEngine


def trace(seed: int) -> list[str]:
    """What happens to three tasks with a few transactions each."""
    engine = MemoryEngine(random.Random(seed))
    happened: list[str] = []

    def change(name: str) -> Callable[[Txn], None]:
        def fn(txn: Txn) -> None:
            happened.append(f"{name} runs in commit {txn.number}")
            txn.put(name.encode(), b"")

        return fn

    async def work(name: str) -> None:
        for turn in range(3):
            await engine.transact(change(f"{name}{turn}"))
            happened.append(f"{name}{turn} is answered")

    async def leave() -> None:
        gone = asyncio.create_task(engine.transact(change("gone")))
        await asyncio.sleep(0)
        gone.cancel()

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(work(name))
            group.create_task(leave())
        await engine.transact(change("last"))

    asyncio.run(run())
    return happened


def test_a_seed_repeats_a_run() -> None:
    for seed in range(20):
        assert trace(seed) == trace(seed)


def test_seeds_differ_in_all_that_an_engine_leaves_open() -> None:
    traces = [trace(seed) for seed in range(50)]
    assert len({tuple(one) for one in traces}) > 40
    seen = {
        "several in one commit": any("b0 runs in commit 1" in one for one in traces),
        "one by one": any("b0 runs in commit 2" in one for one in traces),
        "a commit before the one before it is answered": any(
            one.index("b0 runs in commit 2") < one.index("a0 is answered")
            for one in traces
            if "b0 runs in commit 2" in one
        ),
        "what a cancelled caller asked for is done": any(_ran(one, "gone") for one in traces),
        "what a cancelled caller asked for is not done": any(not _ran(one, "gone") for one in traces),
    }
    assert all(seen.values()), seen


def _ran(one: list[str], name: str) -> bool:
    return any(line.startswith(f"{name} runs") for line in one)
