"""A bound on the bytes that were written and are not on the datanodes yet, over all files of a mount."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from dfslib.errors import Unavailable


class Budget:
    """`pressure` is called when somebody has to wait: give to the datanodes what is here. `changed` is told how many
    bytes are taken.

    `timeout_s`: how long a writer waits for room, while the datanodes or the namenode are away.
    """

    def __init__(
        self, limit_bytes: int, timeout_s: float, pressure: Callable[[], None], changed: Callable[[int], None]
    ) -> None:
        self._limit = limit_bytes
        self._timeout_s = timeout_s
        self._pressure = pressure
        self._changed = changed
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used_bytes(self) -> int:
        return self._used

    @property
    def limit_bytes(self) -> int:
        return self._limit

    async def take(self, size: int) -> None:
        """Raises Unavailable where there is no room in time; then nothing is taken."""
        if not self._waiting and self._fits(size):
            self._add(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._pressure()
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(size)  # it came at the very moment
            else:
                self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
                self._serve()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"the datanodes took nothing for {self._timeout_s:g} s") from None
            raise

    def give(self, size: int) -> None:
        self._add(-size)
        self._serve()

    def _add(self, size: int) -> None:
        self._used += size
        self._changed(self._used)

    def _fits(self, size: int) -> bool:
        return self._used + size <= self._limit or not self._used  # one write alone may be larger than all

    def _serve(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._add(size)
                turn.set_result(None)
