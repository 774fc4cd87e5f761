"""Seeds for tests in which the order of things is left to chance: a test that fails prints how it is repeated."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from dfslib.namenode.metadata.memory_engine import MemoryEngine

T = TypeVar("T")
P = ParamSpec("P")

VARIABLE = "DFS_SEED"
_STUCK_S = 300.0
SEED = os.environ.get(VARIABLE) or f"{random.randrange(1 << 32)}"
"""Of this run of the tests."""

seeded: set[str] = set()
"""The tests that have asked for a chance."""


def chance() -> random.Random:
    """The same at every call of one test; of another one, and in another run, another."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]  # behind it stands the phase
    seeded.add(test)
    return random.Random(f"{SEED} {test}")


def memory_engine() -> MemoryEngine:
    """With interleavings as an engine with a thread and a disk has them."""
    return MemoryEngine(chance())


class _Here(ThreadPoolExecutor):
    """Does at once, in the thread that asks, what it is given."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            done.set_exception(error)
        return done


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, with nothing left to threads: the same seed gives the same run. One that gets stuck fails."""

    async def whole() -> T:
        asyncio.get_running_loop().set_default_executor(_Here())
        async with asyncio.timeout(_STUCK_S):
            return await main

    return asyncio.run(whole())
