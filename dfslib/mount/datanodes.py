"""Which datanode a mount asks, and what it does when that one fails or hesitates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

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

    async def read(self, block: BlockId, start: int, end: int, holders: Sequence[NodeId]) -> bytearray:
        """Bytes [start, end) of a block, fewer where it ends, from whichever datanode gives them first.

        Raises NotFound where no datanode knows the block, InputOutput where none could give it in time.
        """
        deadline = self._monotonic() + self._timeout_s
        while True:
            failures: dict[str, DfsError] = {}
            data = await self._read_once(block, start, end, self._order(holders), failures)
            if data is not None:
                return data
            if failures and all(isinstance(error, NotFound) for error in failures.values()):
                raise NotFound(f"block {format_block(block)} is on no datanode")
            if self._monotonic() >= deadline:
                reasons = "; ".join(f"{url}: {error.message}" for url, error in failures.items())
                raise InputOutput(f"block {format_block(block)} cannot be read: {reasons or 'there is no datanode'}")
            await asyncio.sleep(_RETRY_S)

    async def _read_once(
        self, block: BlockId, start: int, end: int, urls: Sequence[str], failures: dict[str, DfsError]
    ) -> bytearray | None:
        running: dict[asyncio.Task[bytearray], str] = {}
        untried = list(urls)
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
