"""What is said to a mount: frames in order, and nobody waits for a mount that is slow to take them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from aiohttp import WSCloseCode

from dfslib.wire.session import Answer, Failure, Invalidate, LevelRaised, Nodes, Welcome, encode

_QUEUE_MAX: Final = 64 << 20
"""Bytes that wait to be sent. A mount that takes so little is cut off: it drops its caches when it comes back."""


class Socket(Protocol):
    """The sending side of a WebSocket."""

    async def send_bytes(self, data: bytes, /) -> None: ...

    async def close(self, *, code: int, message: bytes, drain: bool) -> bool: ...


class Connection:
    """Sends frames in the order in which they are given, without making anybody wait."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._cut_off: bytes | None = None
        self._finishing = False

    def finish(self) -> None:
        """Nothing more is going to be sent."""
        self._finishing = True
        self._wake.set()

    def cut_off(self, reason: bytes) -> None:
        """Send nothing more and close: the mount drops its caches when it comes back."""
        if self._cut_off is None:
            self._cut_off = reason
            self._wake.set()

    def send(self, message: Welcome | Answer | Failure | Invalidate | Nodes | LevelRaised) -> None:
        frame = encode(message)
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        if self._queued_bytes > _QUEUE_MAX:
            self.cut_off(b"too slow")
        self._wake.set()

    async def run(self) -> None:
        """Until the connection ends, is cut off, or all is sent that is going to be."""
        while self._cut_off is None:
            if self._finishing and not self._queue:
                return
            await self._wake.wait()
            self._wake.clear()
            while self._queue and self._cut_off is None:
                frame = self._queue.popleft()
                self._queued_bytes -= len(frame)
                await self.socket.send_bytes(frame)
        await self.close(WSCloseCode.TRY_AGAIN_LATER, self._cut_off)

    async def close(self, code: int = WSCloseCode.GOING_AWAY, reason: bytes = b"") -> None:
        await self.socket.close(code=code, message=reason, drain=False)
