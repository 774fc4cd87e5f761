"""Short reads from one datanode, those that come at the same time together.

One request is under way at a time. What comes meanwhile waits for its answer, and goes with the next one: so a read
that comes alone is not held up, and the busier everybody is, the less a read costs on both sides.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from dfslib.errors import DfsError, InputOutput, Unavailable
from dfslib.transfer.block_connection import Answer, Connection
from dfslib.wire import messages, routes
from dfslib.wire.reads import READ_BYTES_MAX, READS_MAX, BlockRange, answer_bytes, reads_url, split_answer

_CONTENT_RANGE: Final = re.compile(rb"bytes (\d+)-(\d+)/(\d+)")


class PendingRead(Protocol):
    def give_up(self) -> None:
        """Nobody wants the answer any more; nobody is told one."""

    def watch(self) -> None:
        """From now on, fail with Unavailable where nothing comes for STALL_TIMEOUT_S."""


class ReadLine:
    """`take` gives a connection if there is one at hand, `give_back` gets it with its answer. `request`: the head of
    one, from method, path and header lines."""

    def __init__(
        self,
        url: str,
        take: Callable[[], Connection | None],
        give_back: Callable[[Connection, Answer], None],
        request: Callable[[str, str, str], bytes],
    ) -> None:
        self.url = url
        self._take = take
        self._give_back = give_back
        self._request = request
        self._waiting: deque[_Read] = deque()
        self._under_way: _Together | None = None

    def begin(self, wanted: BlockRange, done: Callable[[bytearray | DfsError], None]) -> PendingRead | None:
        """None where there is no connection. `done` is called later and once."""
        read = _Read(wanted, done)
        if self._under_way is not None:
            self._waiting.append(read)
        elif not self._send([read]):
            return None
        return read

    def _send(self, reads: list[_Read]) -> bool:
        connection = self._take()
        if connection is None:
            return False
        self._under_way = _Together(reads, connection, self._ended)
        ranges = [read.wanted for read in reads]
        if len(ranges) == 1:
            ((block, start, end),) = ranges
            head = self._request("GET", routes.block(block), f"Range: bytes={start}-{end - 1}\r\n")
        else:
            head = self._request("GET", reads_url(ranges), "")
        most = answer_bytes(sum(one.size for one in ranges), len(ranges) if len(ranges) > 1 else 0)
        connection.begin(head, most, self._under_way.end)
        return True

    def _ended(self, together: _Together, answer: Answer | DfsError | None) -> None:
        self._under_way = None
        if isinstance(answer, Answer):
            self._give_back(together.connection, answer)
            found = _found(answer, self.url, [read.wanted for read in together.reads])
        else:
            together.connection.abort()
            found = [answer or Unavailable("given up")] * len(together.reads)
        self._send_waiting()
        for read, one in zip(together.reads, found, strict=True):
            read.tell(one)

    def _send_waiting(self) -> None:
        reads: list[_Read] = []
        size = 0
        while self._waiting and len(reads) < READS_MAX and size + self._waiting[0].wanted.size <= READ_BYTES_MAX:
            read = self._waiting.popleft()
            if read.is_awaited:
                reads.append(read)
                size += read.wanted.size
        if reads and not self._send(reads):
            reads += self._waiting
            self._waiting.clear()
            for read in reads:
                read.tell(Unavailable(f"there is no connection to {self.url}"))


class _Read:
    """One of those that wait or are under way; `together` from then on."""

    def __init__(self, wanted: BlockRange, done: Callable[[bytearray | DfsError], None]) -> None:
        self.wanted = wanted
        self.is_awaited = True
        self.is_watched = False
        self.together: _Together | None = None
        self._done = done

    def tell(self, found: bytearray | DfsError) -> None:
        if self.is_awaited:
            self.is_awaited = False
            self._done(found)

    def give_up(self) -> None:
        self.is_awaited = False
        if self.together is not None:
            self.together.give_up_if_unwanted()

    def watch(self) -> None:
        """While it waits, those before it are watched by whoever waits for them."""
        self.is_watched = True
        if self.together is not None:
            self.together.watch()


class _Together:
    """Reads that went with one request."""

    def __init__(
        self, reads: list[_Read], connection: Connection, ended: Callable[[_Together, Answer | DfsError | None], None]
    ) -> None:
        self.reads = reads
        self.connection = connection
        self._ended = ended
        self._is_watched = False
        for read in reads:
            read.together = self
            if read.is_watched:
                self.watch()

    def watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            self.connection.watch()

    def give_up_if_unwanted(self) -> None:
        """A datanode that hangs must not hold up those who come later for an answer that nobody waits for."""
        if not any(read.is_awaited for read in self.reads):
            self.connection.give_up()
            self.end(None)

    def end(self, answer: Answer | DfsError | None) -> None:
        """None: it was given up."""
        for read in self.reads:
            read.together = None
        self._ended(self, answer)


def _found(answer: Answer, url: str, ranges: Sequence[BlockRange]) -> Sequence[bytearray | DfsError]:
    """What each of the reads came to."""
    try:
        if len(ranges) == 1:
            return [range_of(answer, url, ranges[0])]
        if answer.status != 200:
            raise error_of(answer)
        return split_answer(answer.body, ranges)
    except DfsError as error:
        return [error.again() for _ in ranges]


def range_of(answer: Answer, url: str, wanted: BlockRange) -> bytearray:
    """The bytes asked for. Raises what the answer says, or InputOutput where it is another one."""
    if answer.status != 206:
        raise error_of(answer)
    start, end = wanted.start, wanted.end
    match = _CONTENT_RANGE.fullmatch(answer.headers.get(b"content-range", b""))
    if not match or (int(match[1]), int(match[2]) + 1) != (start, min(end, int(match[3]))):
        raise InputOutput(f"{url} answered with another range than {start}-{end - 1}")
    if len(answer.body) != int(match[2]) + 1 - start:
        raise InputOutput(f"{url} answered with {len(answer.body)} bytes of another number")
    return answer.body


def error_of(answer: Answer) -> DfsError:
    """What an answer that is none says."""
    return messages.decode_error(bytes(answer.body), answer.status)
