"""Background work of a process: each task has an owner, and its failure is heard of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger("dfs.tasks")

T = TypeVar("T")


class Tasks:
    """Owns tasks that outlive the call that started them; they end when it is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """The task, for who also wants to know its outcome."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed name=%s", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """End all of them, and those that they begin at their ends."""
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def run_forever(run_once: Callable[[], Awaitable[object]], interval_s: float, what: str) -> None:
    """Call `run_once` every `interval_s` seconds; a round that fails is logged and the next one tried."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await run_once()
        except Exception:
            log.exception("background round failed what=%s", what)
