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
from dfslib.wire.messages import GrantedBody
from dfslib.wire.session import Grant, Node

log = logging.getLogger("dfs.datanodes")

_HEDGE_S: Final = 1.0
"""A read that has not come by then is also asked of another datanode; the first answer counts."""
_SUSPECT_S: Final = 5.0
"""A datanode that failed is asked last for so long."""
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
        self._give_up: Callable[[], None] | None = None
        self._hedge: asyncio.TimerHandle | None = None
        self._first: asyncio.Future[bytearray] | None = None
        self._task: asyncio.Task[bytearray] | None = None

    def ask(self, client: BlockClient, url: str, block: BlockId, start: int, end: int) -> bool:
        """Ask one datanode, if that can be done right now."""
        self._give_up = client.begin_read(url, block, start, end, self._arrived)
        if self._give_up is None:
            return False
        self._hedge = self._loop.call_later(_HEDGE_S, self._hesitates, url)
        return True

    def go_on(self, begun: _Begun) -> None:
        self._task = self._loop.create_task(self._read(begun))
        self._task.add_done_callback(self._ended)

    async def cancel(self) -> None:
        if self._hedge is not None:
            self._hedge.cancel()
        if self._give_up is not None:
            self._give_up()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _arrived(self, found: bytearray | DfsError) -> None:
        self._give_up = None
        if self._hedge is not None:
            self._hedge.cancel()
        if self._first is not None:  # others were asked meanwhile
            if not self._first.done():
                _settle(self._first, found)
        elif isinstance(found, DfsError):
            self.go_on({})
        else:
            self._done(found)

    def _hesitates(self, url: str) -> None:
        self._first = self._loop.create_future()
        self._first.add_done_callback(self._outrun)
        self.go_on({self._first: url})

    def _outrun(self, first: asyncio.Future[bytearray]) -> None:
        if first.cancelled() and self._give_up is not None:
            self._give_up()

    def _ended(self, task: asyncio.Task[bytearray]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is None or isinstance(error, Exception):
                self._done(error or task.result())


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

    def use(self, nodes: Sequence[Node]) -> None:
        """The datanodes that there are now."""
        self._urls = {node.id: node.public_url for node in nodes}

    def begin(self, block: BlockId, start: int, end: int, holders: Sequence[NodeId], done: Done) -> Reading:
        """`read`, begun when this returns."""
        reading = Reading(partial(self.read, block, start, end, holders), done)
        url = self._urls.get(holders[0]) if holders and not self._suspect_until else None
        if url is None or not reading.ask(self._client, url, block, start, end):
            reading.go_on({})
        return reading

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
            return await self._client.put_granted(urls[0], grant, pieces, sync=sync)
        except NoSpace:
            raise
        except DfsError:
            self._suspect(urls[0])
            raise

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
