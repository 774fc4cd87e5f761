"""Which datanode a mount asks, and what it does when that one fails or hesitates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from dfslib.errors import DfsError, InputOutput, NoSpace, NotFound, Unavailable
from dfslib.model import BlockId, NodeId, format_block
from dfslib.mount.filesystem import Buffer
from dfslib.runtime.logs import event
from dfslib.transfer.block_client import BlockClient
from dfslib.transfer.short_reads import PendingRead
from dfslib.wire.messages import GrantedBody
from dfslib.wire.reads import BlockRange
from dfslib.wire.session import Grant, Node

log = logging.getLogger("dfs.datanodes")

_HEDGE_S: Final = 1.0
"""A read that has not come by then, or half of it, is also asked of another datanode; the first answer counts."""
_SUSPECT_S: Final = 5.0
"""A datanode that failed is asked last for so long."""
_PROBE_AFTER_S: Final = 2.0
"""Of a block: whether the datanode that has it is there at all is asked this often."""
_RETRY_S: Final = 0.2


Done = Callable[[bytearray | Exception], None]
_Begun = dict[asyncio.Future[bytearray], str]


class Reading:
    """One read on its way. As long as nothing is amiss it needs no task, which is half of what a page costs."""

    def __init__(self, read: Callable[[_Begun], Coroutine[Any, Any, bytearray]], done: Done) -> None:
        """`read`: how to go on with what was asked already. `done` is called later and once, unless cancelled."""
        self._read = read
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._asked: PendingRead | None = None
        self._url = ""
        self._first: asyncio.Future[bytearray] | None = None
        self._task: asyncio.Task[bytearray] | None = None

    def ask(self, client: BlockClient, url: str, block: BlockId, start: int, end: int) -> bool:
        """Ask one datanode, if that can be done right now."""
        self._asked = client.begin_read(url, BlockRange(block, start, end), self._arrived)
        self._url = url
        return self._asked is not None

    @property
    def waits(self) -> bool:
        """Whether one datanode was asked, has not answered, and is all there is hope in."""
        return self._asked is not None and self._task is None

    def hesitates(self) -> None:
        """The datanode asked takes long: it is to be one of several."""
        if self._asked is not None:
            self._asked.watch()
            self._first = self._loop.create_future()
            self._first.add_done_callback(self._outrun)
            self.go_on({self._first: self._url})

    def go_on(self, begun: _Begun) -> None:
        self._task = self._loop.create_task(self._read(begun))
        self._task.add_done_callback(self._ended)

    async def cancel(self) -> None:
        if self._asked is not None:
            self._asked.give_up()
            self._asked = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _arrived(self, found: bytearray | DfsError) -> None:
        self._asked = None
        if self._first is not None:  # others were asked meanwhile
            if not self._first.done():
                _settle(self._first, found)
        elif isinstance(found, DfsError):
            self.go_on({})
        else:
            done, self._done = self._done, _nothing  # what it holds may be long, and this is known for a while
            done(found)

    def _outrun(self, first: asyncio.Future[bytearray]) -> None:
        if first.cancelled() and self._asked is not None:
            self._asked.give_up()
            self._asked = None

    def _ended(self, task: asyncio.Task[bytearray]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is None or isinstance(error, Exception):
                self._done(error or task.result())


def _nothing(_: bytearray | Exception) -> None:
    pass


def _settle(future: asyncio.Future[bytearray], found: bytearray | DfsError) -> None:
    if isinstance(found, DfsError):
        future.set_exception(found)
    else:
        future.set_result(found)


class Datanodes:
    """`timeout_s`: how long a read goes on trying. `monotonic`: seconds."""

    def __init__(self, client: BlockClient, timeout_s: float, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._urls: dict[NodeId, str] = {}
        self._suspect_until: dict[str, float] = {}
        self._new: list[Reading] = []
        self._seen: list[Reading] = []
        self._rounds = False

    def use(self, nodes: Sequence[Node]) -> None:
        """The datanodes that there are now."""
        self._urls = {node.id: node.public_url for node in nodes}

    def begin(self, block: BlockId, start: int, end: int, holders: Sequence[NodeId], done: Done) -> Reading:
        """`read`, begun when this returns."""
        reading = Reading(partial(self.read, block, start, end, holders), done)
        url = self._urls.get(holders[0]) if holders and not self._suspect_until else None
        if url is not None and reading.ask(self._client, url, block, start, end):
            self._note(reading)
        else:
            reading.go_on({})
        return reading

    def _note(self, reading: Reading) -> None:
        """See to it that others are asked, too, should it take long: in rounds for all of them, as almost none does."""
        self._new.append(reading)
        if not self._rounds:
            self._rounds = True
            asyncio.get_running_loop().call_later(_HEDGE_S / 2, self._round)

    def _round(self) -> None:
        """Those that have seen a whole round wait for longer than half of _HEDGE_S."""
        for reading in self._seen:
            if reading.waits:
                reading.hesitates()
        self._seen, self._new = [reading for reading in self._new if reading.waits], []
        self._rounds = bool(self._seen)
        if self._rounds:
            asyncio.get_running_loop().call_later(_HEDGE_S / 2, self._round)

    async def read(
        self,
        block: BlockId,
        start: int,
        end: int,
        holders: Sequence[NodeId],
        begun: _Begun,
    ) -> bytearray:
        """Bytes [start, end) of a block, fewer where it ends, from whichever datanode gives them first. `begun`: which
        of them were asked already.

        Raises NotFound where no datanode knows the block, InputOutput where none could give it in time.
        """
        deadline = self._monotonic() + self._timeout_s
        while True:
            failures: dict[str, DfsError] = {}
            data = await self._read_once(block, start, end, self._order(holders), begun, failures)
            if data is not None:
                return data
            if failures and all(isinstance(error, NotFound) for error in failures.values()):
                raise NotFound(f"block {format_block(block)} is on no datanode")
            if self._monotonic() >= deadline:
                reasons = "; ".join(f"{url}: {error.message}" for url, error in failures.items())
                raise InputOutput(f"block {format_block(block)} cannot be read: {reasons or 'there is no datanode'}")
            await asyncio.sleep(_RETRY_S)
            begun = {}

    async def _read_once(
        self,
        block: BlockId,
        start: int,
        end: int,
        urls: Sequence[str],
        running: _Begun,
        failures: dict[str, DfsError],
    ) -> bytearray | None:
        untried = [url for url in urls if url not in running.values()]
        try:
            while untried or running:
                if untried:
                    url = untried.pop(0)
                    running[asyncio.create_task(self._client.read(url, block, start, end))] = url
                done, _ = await asyncio.wait(
                    running, timeout=_HEDGE_S if untried else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    url = running.pop(task)
                    error = task.exception()
                    if error is None:
                        for slow in running.values():
                            self._suspect(slow)
                        return task.result()
                    if not isinstance(error, DfsError):
                        raise error
                    failures[url] = error
                    if not isinstance(error, NotFound):
                        self._suspect(url)
                        log.warning(event("read failed", block=format_block(block), datanode=url, reason=str(error)))
            return None
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def put(self, grant: Grant, pieces: Sequence[Buffer], *, sync: bool) -> GrantedBody:
        """Store a block on the grant's targets by way of one of them. Raises NoSpace, Unavailable and what else
        the datanode says; the caller then asks for another grant."""
        urls = self._order([target.node for target in grant.targets])
        if not urls:
            raise Unavailable("there is no datanode")
        try:
            return await self._put_watched(urls[0], grant, pieces, sync=sync)
        except NoSpace:
            raise
        except DfsError:
            self._suspect(urls[0])
            raise

    async def _put_watched(self, url: str, grant: Grant, pieces: Sequence[Buffer], *, sync: bool) -> GrantedBody:
        """A datanode may take long for a block, because of its disk or of the others; one that hangs answers nothing
        else either. The caller's time has to be enough for a second one."""
        putting = asyncio.create_task(self._client.put_granted(url, grant, pieces, sync=sync))
        try:
            while not (await asyncio.wait([putting], timeout=_PROBE_AFTER_S))[0]:
                probing = asyncio.create_task(self._client.probe(url))
                try:
                    await asyncio.wait([putting, probing], return_when=asyncio.FIRST_COMPLETED)
                    if not putting.done():
                        await probing
                finally:
                    probing.cancel()
                    await asyncio.gather(probing, return_exceptions=True)
            return putting.result()
        finally:
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)

    def _suspect(self, url: str) -> None:
        self._suspect_until[url] = self._monotonic() + _SUSPECT_S

    def _order(self, first: Sequence[NodeId]) -> list[str]:
        """All URLs, once each: those of `first`, in that order, then the others; suspects last."""
        known = [self._urls[node] for node in first if node in self._urls]
        urls = list(dict.fromkeys([*known, *self._urls.values()]))
        if self._suspect_until:
            now = self._monotonic()
            self._suspect_until = {url: until for url, until in self._suspect_until.items() if until > now}
            urls.sort(key=lambda url: url in self._suspect_until)  # stable
        return urls
