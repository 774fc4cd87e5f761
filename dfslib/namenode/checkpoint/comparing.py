"""Where the newest commit that a datanode was ever brought stands towards this store's history.

A datanode tells the commit when it joins. One that does not know, or runs a release that keeps no positions, is asked
for its copies, and their newest one for its header.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from dfslib.errors import DfsError, Unavailable
from dfslib.model import NodeId
from dfslib.namenode.checkpoint import format as files
from dfslib.namenode.checkpoint.branches import described, described_commit
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.checkpoint.fetching import newest_header
from dfslib.namenode.checkpoint.format import FileName, Header
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.quorum import Heard
from dfslib.namenode.metadata.engine import MetadataEngine
from dfslib.namenode.metadata.history import History, Place, place_of, place_of_history
from dfslib.runtime.logs import event
from dfslib.transfer.metadata_files import list_files
from dfslib.transfer.peer_session import PeerSession
from dfslib.wire.positions import Position, parse_position

log = logging.getLogger("dfs.checkpoint")

_ASK_S: Final = 120.0
"""A disk that has just been started reads a thousand files for a list."""
_PATIENCE_S: Final = 5.0
"""A datanode waits 10 s for the answer to its join; what takes longer is there when it comes again."""
_AGREES: Final = Heard(Place.PAST, "")


class Comparing:
    def __init__(self, engine: MetadataEngine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
        self._asked: dict[NodeId, tuple[Joiner, asyncio.Task[Header | FileName | None]]] = {}
        self._session: PeerSession | None = None

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    async def compare(self, joiner: Joiner) -> Heard:
        """Raises InvalidArgument for a position that is none, Unavailable where the datanode has to be asked and does
        not answer in time: it is to come again."""
        told = parse_position(joiner.position) if joiner.position else None
        if told is not None and self.place(told) is Place.PAST:
            return _AGREES
        newest = await self._newest(joiner)
        history = self._engine.history
        if isinstance(newest, Header) and (position := newest.position) is not None and (told or position) <= position:
            assert newest.history is not None
            place = self._place_of_copy(newest.epoch, newest.history)
            what = f"has {described(newest)}"
        elif told is not None:
            place = self.place(told)
            what = f"was brought commit {told.number} of epoch {told.epoch} by run {told.run.hex()}"
        elif newest is not None:  # of a release that goes by numbers
            ours = (self._cluster.epoch, history.head.number)
            place = Place.LATER if (newest.epoch, newest.last) > ours else Place.PAST
            what = f"has commit {newest.last} of epoch {newest.epoch}"
        else:
            return _AGREES
        if place is Place.PAST:
            return _AGREES
        where = "behind the end of" if place is Place.LATER else "which is not in the past of"
        here = described_commit(self._cluster.epoch, history.head)
        return Heard(place, f"datanode {joiner.node[:8]} at {joiner.url} {what}, {where} the metadata here, {here}")

    def place(self, position: Position) -> Place:
        """Of a commit of which no more is known than a datanode remembers."""
        if position.epoch != self._cluster.epoch:
            return Place.LATER if position.epoch > self._cluster.epoch else Place.PAST
        return place_of(position.run, position.number, position.chain, self._engine.history)

    async def close(self) -> None:
        tasks = [task for _, task in self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _place_of_copy(self, epoch: int, history: History) -> Place:
        if epoch != self._cluster.epoch:
            return Place.LATER if epoch > self._cluster.epoch else Place.PAST
        return place_of_history(history, self._engine.history)

    async def _newest(self, joiner: Joiner) -> Header | FileName | None:
        """The header of the newest copy that the datanode has, or its name alone where that cannot be read."""
        before = self._asked.get(joiner.node)
        if before is None or before[0] != joiner:
            if before is not None:
                before[1].cancel()
            before = joiner, asyncio.create_task(self._ask(joiner.url), name=f"newest copy of {joiner.url}")
            self._asked[joiner.node] = before
        task = before[1]
        done, _ = await asyncio.wait({task}, timeout=_PATIENCE_S)
        if not done:
            raise Unavailable(f"the copies of the metadata on datanode {joiner.node} are being looked at")
        if self._asked.get(joiner.node) is before:
            del self._asked[joiner.node]
        try:
            return task.result()
        except (DfsError, TimeoutError, asyncio.CancelledError) as error:
            if task.cancelled():  # it came again from elsewhere
                raise Unavailable(f"the copies of the metadata on datanode {joiner.node} are looked at anew") from None
            reason = str(error) or "it takes too long"
            raise Unavailable(f"datanode {joiner.node} does not tell what metadata it has: {reason}") from error

    async def _ask(self, url: str) -> Header | FileName | None:
        assert self._session is not None
        async with asyncio.timeout(_ASK_S):
            names = [name for file in await list_files(self._session, url) if (name := files.parse_name(file.name))]
            if not names:
                return None
            newest = max(names, key=lambda name: (name.epoch, name.last, name.first))
            try:
                return await newest_header(self._session, url, names) or newest
            except Unavailable as error:  # it reads and checks all of a file before it sends any of it
                log.warning(event("copies cannot be looked at", url=url, reason=error))
                return newest
