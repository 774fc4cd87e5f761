"""A datanode's life with its namenode: join, report what is stored, then heartbeat until told to stop.

    away --join--> joined --report--> registered --heartbeat, heartbeat, ...
      ^                                   | UnknownNode: join again at once
      +------- no answer: wait longer each time, and join again
      any --Fenced: another process is this datanode--> the process ends

Blocks are served all the while. The orders that come in answers (delete these) are carried out here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

from dfslib.datanode.losses import Losses
from dfslib.datanode.namenode_client import NamenodeClient
from dfslib.datanode.own_address import own_address
from dfslib.datanode.replication import NO_OUTCOMES, Outcomes, Replication
from dfslib.datanode.store import incarnation
from dfslib.datanode.store.block_store import BlockStore
from dfslib.datanode.store.listing import Listing
from dfslib.datanode.store.volume import Volume
from dfslib.errors import DfsError, Fenced, ForeignVolume, UnknownNode
from dfslib.model import BlockId
from dfslib.runtime.logs import event
from dfslib.wire.features import VERSION, Role, named
from dfslib.wire.messages import CopyOrder, HeartbeatAnswer, HeartbeatRequest, JoinRequest, ReportRequest

log = logging.getLogger("dfs.registration")

T = TypeVar("T")

REPORT_PAGE: Final = 5000
"""Blocks in a page: 50 KB to send, and a transaction of milliseconds for the namenode."""
_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 0.5
"""Short: two small requests a second harm no namenode, and one that was restarted serves nothing before it has heard
half of its datanodes."""
_DELETE_S: Final = 1.0
_LOSSES_MAX: Final = 1000
"""More blocks lost at once than this are not told one by one, but by reporting those that are left."""
_ON_THE_WAY_S: Final = 1.0
"""A client that was redirected here before the namenode knew has connected by then. Nobody tells when it has."""
_BEAT_MIN_S: Final = 0.1
"""The namenode holds a heartbeat for about a second. One that does not must not be flooded."""


@dataclass(frozen=True)
class Addresses:
    """What to advertise: `url` is "" where it is this machine's address towards the namenode, with `port`."""

    port: int
    url: str
    public_url: str


class Registration:
    """`run` is the whole life; `leave` says good-bye once `run` has been cancelled."""

    def __init__(
        self,
        namenode: NamenodeClient,
        volume: Volume,
        store: BlockStore,
        pool: Executor,
        replication: Replication,
        losses: Losses,
        addresses: Addresses,
        *,
        position: Callable[[], str],
        on_registered: Callable[[], None] = lambda: None,
    ) -> None:
        """`position` tells the newest one of the metadata that the volume was brought."""
        self._namenode = namenode
        self._volume = volume
        self._store = store
        self._pool = pool
        self._replication = replication
        self._losses = losses
        self._addresses = addresses
        self._position = position
        self._on_registered = on_registered
        self._incarnation = incarnation.NONE
        self._backoff_s = 0.0
        self._waiting_for = ""
        """Why the namenode is waited for, as it was told: it may refuse after it did not answer."""
        self._report_wanted = False
        self._to_delete: list[int] = []
        """Ordered, and not done yet: only as long as the namenode has not been told that they are here after all."""
        self.registered = False
        """True from the first complete report on; blocks are served also while the namenode is away."""
        self.ready = False
        """True from when the cluster is whole with this datanode in it, and for good: what another one lacks later is
        no reason to end this one."""

    async def run(self) -> None:
        """Never returns. Raises ForeignVolume where the volume is another cluster's, Fenced where another process is
        this datanode."""
        self._incarnation = await self._in_thread(self._volume.incarnation)
        while True:
            try:
                await self._join()
                await self._report()
                self._connected()
                while True:
                    await self._beat()
            except (ForeignVolume, Fenced):
                self.registered = False
                raise
            except UnknownNode:
                log.info(event("the namenode does not know this datanode", action="joining again"))
                await self._wait("unknown")
            except DfsError as error:
                await self._wait(str(error))

    async def leave(self) -> None:
        """Tell the namenode that this datanode stops, so that nobody is sent here any more; return when those
        who were sent here before that have come."""
        if not self.registered:
            return
        try:
            await self._namenode.heartbeat(self._heartbeat(leaving=True))
        except DfsError as error:
            log.info(event("left without the namenode's knowledge", reason=error))
            return
        await asyncio.sleep(_ON_THE_WAY_S)

    def report_soon(self) -> None:
        """Report all blocks again before long: there are some that the namenode does not know of. From any thread."""
        self._report_wanted = True

    async def _join(self) -> None:
        usage = self._store.usage()
        url = self._addresses.url
        if not url and (address := await own_address(self._namenode.url)):
            url = f"http://{address}:{self._addresses.port}/"
        answer = await self._namenode.join(
            JoinRequest(
                node_id=self._volume.node_id,
                cluster_id=self._volume.cluster_id,
                protocol=self._volume.level,
                port=self._addresses.port,
                url=url,
                public_url=self._addresses.public_url,
                capacity=usage.capacity,
                used=usage.used,
                free=usage.free,
                blocks=usage.blocks,
                epoch=self._volume.epoch,
                features=named(Role.DATANODE),
                version=VERSION,
                position=self._position(),
                incarnation=self._incarnation.name,
                starts=self._incarnation.starts,
                ancestors=self._incarnation.ancestors,
            )
        )
        await self._in_thread(self._volume.bind, answer.cluster_id, answer.epoch, answer.level)
        log.info(
            event("joined", namenode=self._namenode.url, cluster=answer.cluster_id, url=answer.url, blocks=usage.blocks)
        )

    async def _report(self) -> None:
        self._report_wanted = False
        self._to_delete.clear()  # they are told as here, and are ordered again if that is still wanted
        # Of what was lost before the listing is made, none is in it, unless it has been made good. What is lost later
        # may be in it, and is still to be told.
        losses = self._losses.untold()
        listing = await self._in_thread(self._store.start_listing)
        try:
            await self._report_pages(listing)
        finally:
            self._store.end_listing(listing)
        self._losses.told(losses)

    async def _report_pages(self, listing: Listing) -> None:
        after, last = 0, False
        while not last:
            blocks, last = listing.page(after, REPORT_PAGE)
            answer = await self._namenode.report(
                ReportRequest(self._volume.node_id, after, blocks, last, self._incarnation.name)
            )
            after = blocks[-1] if blocks else after
            await self._delete(answer.delete)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcomes, losses = self._replication.outcomes(), self._losses.untold()
        if len(losses) > _LOSSES_MAX:
            await self._report()
            losses = self._losses.untold()
        answer: HeartbeatAnswer = await self._namenode.heartbeat(self._heartbeat(outcomes, losses))
        if answer.level > self._volume.level:
            await self._in_thread(self._volume.bind, self._volume.cluster_id, self._volume.epoch, answer.level)
            log.info(event("the cluster's level has risen", level=answer.level))
        self.ready = self.ready or answer.whole
        self._replication.told(outcomes)
        self._losses.told(losses)
        self._order_copies(answer.copy)
        await self._delete(answer.delete)
        if self._report_wanted or answer.report:
            await self._report()
        if not answer.delete and not answer.copy and not self._to_delete:
            await asyncio.sleep(max(0.0, _BEAT_MIN_S - (loop.time() - began)))

    def _order_copies(self, orders: Sequence[CopyOrder]) -> None:
        """What is to be here is not deleted for an older order, which may wait for its turn."""
        wanted = {order.block for order in orders}
        self._to_delete = [block for block in self._to_delete if block not in wanted]
        self._replication.order(orders)

    def _heartbeat(
        self, outcomes: Outcomes = NO_OUTCOMES, losses: Iterable[BlockId] = (), *, leaving: bool = False
    ) -> HeartbeatRequest:
        usage = self._store.usage()
        return HeartbeatRequest(
            node_id=self._volume.node_id,
            capacity=usage.capacity,
            used=usage.used,
            free=usage.free,
            blocks=usage.blocks,
            leaving=leaving,
            # What is here or not is asked now: a copy may have been lost again since, a loss made good.
            copied=sorted(block for block in outcomes.copied if block in self._store),
            failed=sorted(outcomes.failed),
            bad=sorted(block for block in losses if block not in self._store),
            ready=self.ready,
            position=self._position(),
            incarnation=self._incarnation.name,
        )

    async def _delete(self, blocks: list[int]) -> None:
        self._to_delete.extend(blocks)
        if self._to_delete:
            count = await self._in_thread(self._delete_some)
            log.info(event("blocks deleted", count=count, left=len(self._to_delete)))

    def _delete_some(self) -> int:
        """As many as fit between two heartbeats: a thousand large files can take an old disk seconds."""
        count = 0
        deadline = time.monotonic() + _DELETE_S
        while self._to_delete and time.monotonic() < deadline:
            count += self._store.delete(BlockId(self._to_delete.pop()))
        return count

    def _connected(self) -> None:
        self._backoff_s = 0.0
        self._waiting_for = ""
        if not self.registered:
            self.registered = True
            self._on_registered()

    async def _wait(self, reason: str) -> None:
        if reason != self._waiting_for:
            self._waiting_for = reason
            log.warning(event("waiting for the namenode", namenode=self._namenode.url, reason=reason))
        self._backoff_s = min(_BACKOFF_MAX_S, self._backoff_s * 2 or _BACKOFF_FIRST_S)
        # Spread out, so that a hundred datanodes do not all come back in the same instant.
        await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1))

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
