"""Sending pieces of blocks: nothing leaves before its checksums were checked.

Small answers are read, checked and written as bytes. Large ones go out by windows: a thread reads and checks
the next window while the kernel sends this one from the page cache (sendfile), so that data is checked
without being copied to the socket by us. What is missing or bad here comes from another datanode.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import aclosing
from typing import Final

from aiohttp import web

from dfslib.datanode.layouts import Piece
from dfslib.datanode.services import Services
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.open_block import OpenBlock
from dfslib.errors import DfsError, NotFound
from dfslib.model import BlockId, format_block
from dfslib.runtime.logs import event
from dfslib.transfer.block_source import read_block

log = logging.getLogger("dfs.sending")

SMALL_BYTES: Final = 256 << 10
"""Up to here one write of bytes is cheaper than headers, thread and sendfile."""
_WINDOW_BYTES: Final = 4 << 20
"""Checked and then sent as one: a turn of thread, event loop and sendfile costs 150 µs, 4 MiB take 2 ms."""
_STALL_S: Final = 300
"""A client that takes less than a window in this time is cut off: it holds files and pins."""
_ZEROS: Final = bytes(_WINDOW_BYTES)

Replan = Callable[[int], Awaitable[list[Piece] | None]]
"""Where the bytes from this position of the answer on lie by now; None where they cannot be had any more."""


class Sender:
    """Reads and sends pieces for one request. `from_peers`: other datanodes may be asked."""

    def __init__(self, services: Services, *, from_peers: bool, what: str) -> None:
        """`what` names the block or file in the log."""
        self._services = services
        self._store = services.store
        self._from_peers = from_peers
        self._what = what

    async def read(self, pieces: list[Piece]) -> bytes:
        """The bytes of a small answer. Raises NotFound or InputOutput where a block cannot be had."""
        parts = [await self._read_piece(piece) for piece in pieces]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_piece(self, piece: Piece) -> bytes:
        block = piece.block
        if block is None:
            return _ZEROS[: len(piece)]
        try:
            # Most small reads are of blocks that are open and in memory: no thread is needed for them.
            opened = self._store.acquire_if_open(block)
            if opened is not None:
                try:
                    data = opened.read_if_in_memory(piece.start, piece.end) if piece.end <= opened.size else None
                except BadBlock:
                    data = None  # the thread will find out, and put it into quarantine
                finally:
                    self._store.release(opened)
                if data is not None:
                    return data
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._services.pool, self._read_checked, block, piece.start, piece.end)
        except (NotFound, BadBlock) as error:
            async with aclosing(await self._from_peer(block, piece.start, piece.end, error)) as source:
                return b"".join([part async for part in source])

    def _read_checked(self, block: BlockId, start: int, end: int) -> bytes:
        with self._store.opened(block) as opened:
            _require(opened, end)
            return opened.read(start, end)

    async def _from_peer(self, block: BlockId, start: int, end: int, reason: Exception) -> AsyncGenerator[bytes, None]:
        if not self._from_peers:
            raise NotFound(f"block {format_block(block)} is not on this datanode: {reason}")
        self._services.metrics.peer_reads.inc()
        urls = await self._services.namenode.locate(block)
        return read_block(self._services.peers, urls, block, start, end)

    async def send(
        self, request: web.Request, response: web.StreamResponse, pieces: list[Piece], replan: Replan | None
    ) -> None:
        """Send a large answer. Raises NotFound, InputOutput or Unavailable while nothing was sent.

        Once the headers are out, a block that nobody has ends the connection in the middle of the body, so
        that the client notices; raises ConnectionAbortedError then.
        """
        stream = _Stream(self, request, response)
        # All of them at once: the last block must be there still when the first gigabytes have been sent.
        with self._store.pinned({piece.block for piece in pieces if piece.block is not None}):
            try:
                await stream.send(pieces)
            except (DfsError, TimeoutError) as error:
                if not response.prepared:
                    raise
                await self._resume(stream, error, replan)
            finally:
                self._services.metrics.sent_bytes.inc(stream.sent)
        await response.write_eof()

    async def _resume(self, stream: _Stream, error: Exception, replan: Replan | None) -> None:
        try:
            pieces = await replan(stream.sent) if replan and not isinstance(error, TimeoutError) else None
            if pieces is None:
                raise error
            await stream.send(pieces)
        except (DfsError, TimeoutError) as final:
            reason = str(final) or "the client takes nothing"
            log.error(event("answer cut off", what=self._what, sent=stream.sent, reason=reason))  # noqa: TRY400
            self._services.metrics.aborted_answers.inc()
            stream.abort()
            raise ConnectionAbortedError("the answer was cut off") from final

    def start_check(self, window: Piece) -> Future[OpenBlock | None] | None:
        """Check a window in a thread; the result is the block, acquired, or None where it is not good here."""
        if window.block is None:
            return None
        return self._services.pool.submit(self._check, window.block, window.start, window.end)

    def _check(self, block: BlockId, start: int, end: int) -> OpenBlock | None:
        try:
            opened = self._store.acquire(block)
        except (NotFound, BadBlock):
            return None
        try:
            _require(opened, end)
            opened.check(start, end)
        except BadBlock as error:
            self._store.quarantine(opened, error)
            self._store.release(opened)
            return None
        except BaseException:
            self._store.release(opened)
            raise
        return opened

    def peer_source(self, window: Piece) -> Awaitable[AsyncGenerator[bytes, None]]:
        assert window.block is not None
        return self._from_peer(window.block, window.start, window.end, NotFound("missing or bad"))

    async def cut_off(self, opened: OpenBlock) -> None:
        """Take a block out of use whose file has become too short while it was sent."""
        error = BadBlock("the file became shorter while it was sent")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._services.pool, self._store.quarantine, opened, error)

    def release_unused(self, checking: Future[OpenBlock | None]) -> None:
        """Give back what a check acquired that nobody will look at."""

        def release(done: Future[OpenBlock | None]) -> None:
            if not done.cancelled() and done.exception() is None and (opened := done.result()) is not None:
                self._store.release(opened)

        checking.add_done_callback(release)

    def release(self, opened: OpenBlock) -> None:
        self._store.release(opened)


class _Stream:
    """The windows of one answer on their way out."""

    def __init__(self, sender: Sender, request: web.Request, response: web.StreamResponse) -> None:
        self._sender = sender
        self._request = request
        self._response = response
        self.sent = 0

    async def send(self, pieces: list[Piece]) -> None:
        rest = deque(pieces)
        window = _take_window(rest)
        checking = self._sender.start_check(window) if window else None
        try:
            while window is not None:
                opened = await asyncio.wrap_future(checking) if checking else None
                checking = None
                if opened is None:
                    window = _with_rest_of_piece(window, rest)
                following = _take_window(rest)
                try:
                    if following is not None:
                        checking = self._sender.start_check(following)
                    async with asyncio.timeout(_STALL_S * (1 + len(window) // _WINDOW_BYTES)):
                        await self._send_window(window, opened)
                finally:
                    if opened is not None:
                        self._sender.release(opened)
                window = following
        finally:
            if checking is not None:
                self._sender.release_unused(checking)

    async def _send_window(self, window: Piece, opened: OpenBlock | None) -> None:
        if opened is not None:
            await self._prepare()
            sent = await self._send_file(opened, window.start, len(window))
            if sent < len(window):  # the file was cut off after it was checked
                await self._sender.cut_off(opened)
                await self._send_from_peer(Piece(window.block, window.start + sent, window.end))
        elif window.block is None:
            await self._prepare()
            await self._write(memoryview(_ZEROS)[: len(window)])
        else:
            await self._send_from_peer(window)

    async def _send_from_peer(self, window: Piece) -> None:
        async with aclosing(await self._sender.peer_source(window)) as source:
            async for part in source:
                await self._prepare()  # only now: until the first byte an error can still be answered properly
                await self._write(part)

    async def _prepare(self) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)  # a StreamResponse sends its headers at once

    async def _write(self, data: bytes | memoryview) -> None:
        await self._response.write(data)
        self.sent += len(data)

    async def _send_file(self, opened: OpenBlock, start: int, count: int) -> int:
        """How many bytes were sent: less than `count` where the file has become too short."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        loop = asyncio.get_running_loop()
        try:
            sent = await loop.sendfile(transport, opened.file, start, count, fallback=False)
        except asyncio.SendfileNotAvailableError:  # a file system without it
            try:
                await self._write(await loop.run_in_executor(None, opened.read, start, start + count))
            except BadBlock:
                return 0
            return count
        self.sent += sent
        return sent

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _require(opened: OpenBlock, end: int) -> None:
    if end > opened.size:
        # The block is good, but not the one that the layout means: another datanode cannot help.
        raise NotFound(f"block {format_block(opened.block)} has {opened.size} bytes, and {end} were expected")


def _take_window(rest: deque[Piece]) -> Piece | None:
    """The next window off `rest`. Cut at multiples of _WINDOW_BYTES in the block, so that no slice is
    checked twice."""
    if not rest:
        return None
    piece = rest.popleft()
    stop = min(piece.end, (piece.start // _WINDOW_BYTES + 1) * _WINDOW_BYTES)
    if stop < piece.end:
        rest.appendleft(Piece(piece.block, stop, piece.end))
    return Piece(piece.block, piece.start, stop)


def _with_rest_of_piece(window: Piece, rest: deque[Piece]) -> Piece:
    """What is not here comes from another datanode in one request, and not window by window."""
    if window.block is not None and rest and (rest[0].block, rest[0].start) == (window.block, window.end):
        return Piece(window.block, window.start, rest.popleft().end)
    return window
