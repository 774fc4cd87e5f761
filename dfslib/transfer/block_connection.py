"""One connection to a datanode: a request and its answer, straight between the socket and the caller's buffers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from dfslib.errors import DfsError, Unavailable

Buffer = bytes | bytearray | memoryview

STALL_TIMEOUT_S: Final = 20.0
"""Without a byte in either direction. Longer than what a datanode grants those it relays a block to."""
_HEAD_MAX: Final = 16 << 10
_BODY_MAX: Final = 1 << 20
"""Of an answer that was not asked to be long: an error, or what became of a block."""
_ONE_WRITE: Final = 256 << 10
"""A body this small goes out with its head, and arrives with it."""
_SHORT_ANSWER: Final = re.compile(
    rb"HTTP/1\.1 206 [^\r\n]*\r\nContent-Range: ([^\r\n]*)\r\nETag: [^\r\n]*\r\nContent-Length: (\d{1,9})\r\n"
    rb"Content-Type: [^\r\n]*\r\n"
)
"""The head with which datanodes answer short requests; thousands a second of them."""


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytearray


class Connection(asyncio.BufferedProtocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head = bytearray(_HEAD_MAX)
        self._head_view = memoryview(self._head)
        self._head_end = 0
        self._body: bytearray | None = None
        self._body_view: memoryview | None = None
        self._body_end = 0
        self._wanted: int | None = None
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._done: Callable[[Answer | DfsError], None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._progress = 0
        self.reusable = True
        self.stalled = False
        """Nothing moved for too long: what was asked is not to be asked of this datanode again."""

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's own class

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body_view is not None:
            return self._body_view[self._body_end :]
        return self._head_view[self._head_end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._progress += nbytes
        if self._body_view is not None:
            self._body_end += nbytes
        else:
            self._head_end += nbytes
            if not self._parse_head():
                return
        if self._body is not None and self._body_end == len(self._body):
            self._finish()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._tell(Unavailable(f"the connection ended: {exc or 'closed by the datanode'}"))

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # One request.

    async def request(self, head: bytes, body: Sequence[Buffer], wanted: int | None) -> Answer:
        """`wanted`: what the body of a good answer may have at most. Raises Unavailable."""
        assert self._transport is not None
        answer: asyncio.Future[Answer] = self._loop.create_future()

        def done(result: Answer | DfsError) -> None:
            if not answer.done():
                answer.set_exception(result) if isinstance(result, DfsError) else answer.set_result(result)

        self._expect(wanted, done)
        self.watch()
        try:
            if len(body) == 1 and len(body[0]) <= _ONE_WRITE:
                self._transport.write(b"".join((head, body[0])))
                body = ()
            else:
                self._transport.write(head)
            for piece in body:
                if answer.done() or not self.reusable:
                    break  # refused, or gone
                self._transport.write(piece)
                self._progress += 1
                if self._writable is not None:
                    either: list[asyncio.Future[Any]] = [self._writable, answer]
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            result = await answer
        except BaseException:
            self.give_up()
            raise
        if body and not self._all_sent():
            self.abort()
        return result

    def begin(self, head: bytes, wanted: int, done: Callable[[Answer | DfsError], None]) -> None:
        """As `request`, without a body and without waiting: `done` is called later, however late unless `watch` is."""
        assert self._transport is not None
        self._expect(wanted, done)
        self._transport.write(head)

    def give_up(self) -> None:
        """Nobody wants the answer any more."""
        self._done = None
        self._unwatch()
        self.abort()

    def watch(self) -> None:
        """From now on, fail where nothing comes for STALL_TIMEOUT_S."""
        self._watch = self._loop.call_later(STALL_TIMEOUT_S, self._check_progress, -1)

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _expect(self, wanted: int | None, done: Callable[[Answer | DfsError], None]) -> None:
        self._head_end, self._body, self._body_view, self._body_end = 0, None, None, 0
        self._wanted = wanted
        self._done = done

    def abort(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def _all_sent(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() == 0

    def _check_progress(self, seen: int) -> None:
        self.stalled = self._progress == seen
        if self._progress == seen and self._writable is None:
            self._tell(Unavailable(f"nothing came from the datanode for {STALL_TIMEOUT_S:g} s"))
        elif self._progress == seen:
            self._tell(Unavailable(f"the datanode took nothing for {STALL_TIMEOUT_S:g} s"))
        else:
            self._watch = self._loop.call_later(STALL_TIMEOUT_S, self._check_progress, self._progress)

    def _parse_head(self) -> bool:
        """Whether the head is complete; then what follows goes into the body."""
        end = self._head.find(b"\r\n\r\n", 0, self._head_end)
        if end < 0:
            if self._head_end == _HEAD_MAX:
                self._break("the head of the answer is too long")
            return False
        if match := _SHORT_ANSWER.fullmatch(self._head, 0, end + 2):
            self._status, self._headers = 206, {b"content-range": match[1]}
            return self._begin_body(end + 4, int(match[2]))
        lines = bytes(self._head_view[:end]).split(b"\r\n")
        try:
            self._status = int(lines[0].split(b" ", 2)[1])
            pairs = (line.partition(b":") for line in lines[1:])
            self._headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            length = int(self._headers.get(b"content-length", b"-1" if self._status != 204 else b"0"))
        except (IndexError, ValueError):
            self._break("the answer is not HTTP")
            return False
        if self._headers.get(b"connection", b"").lower() == b"close":
            self.reusable = False
        return self._begin_body(end + 4, length)

    def _begin_body(self, start: int, length: int) -> bool:
        """The head ends at `start` of what has been received."""
        good = self._status in (200, 201, 206)
        if not 0 <= length <= (self._wanted if good and self._wanted is not None else _BODY_MAX):
            self._break(f"the answer has {length} bytes")
            return False
        rest = self._head_end - start
        if rest > length:
            self._break("the answer goes on behind its end")
            return False
        self._body = bytearray(length)
        self._body[:rest] = self._head_view[start : self._head_end]
        self._body_view, self._body_end = memoryview(self._body), rest
        return True

    def _finish(self) -> None:
        body, self._body = self._body, None
        self._body_view, self._head_end = None, 0
        assert body is not None
        self._tell(Answer(self._status, self._headers, body))

    def _break(self, reason: str) -> None:
        self._tell(Unavailable(reason))
        self.abort()

    def _tell(self, result: Answer | DfsError) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            self._unwatch()
            done(result)
