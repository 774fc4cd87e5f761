"""A TCP proxy that lets every answer wait: a datanode with a sick disk, as its clients see it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Self

from tests.deadline import DEADLINE_S


class DelayingProxy:
    """Listens on `host`:`port`, passes on to `target`; `delay_s` may be changed at any time. `writes` are the blocks
    that were sent through it."""

    def __init__(self, host: str, port: int, target: tuple[str, int]) -> None:
        self.delay_s = 0.0
        self.writes = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._listen(host, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    async def _listen(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, host, port)
        self._tasks: set[asyncio.Task[object]] = set()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection(*self._target)
            await asyncio.gather(self._pipe(reader, back, delayed=False), self._pipe(there, writer, delayed=True))
        self._tasks.discard(task)
        writer.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool) -> None:
        while data := await reader.read(1 << 16):
            if delayed:
                await asyncio.sleep(self.delay_s)
            elif data.startswith(b"PUT /blocks/"):
                self.writes += 1
            writer.write(data)
            await writer.drain()
        writer.close()
