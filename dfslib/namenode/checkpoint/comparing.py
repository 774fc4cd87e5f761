"""Where the newest commit that a datanode was ever brought stands towards this store's history.

A datanode tells the commit when it joins. One that does not know, or runs a release that keeps no positions, is asked
for its copies, and their newest one for its header.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NamedTuple

from dfslib.errors import DfsError, Unavailable
from dfslib.model import NodeId
from dfslib.namenode.checkpoint.branches import described, described_commit
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.checkpoint.fetching import newest_header
from dfslib.namenode.checkpoint.format import FileName, Header, parse_name
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.quorum import Heard
from dfslib.namenode.metadata.engine import MetadataEngine
from dfslib.namenode.metadata.history import Place, place_of, place_of_history
from dfslib.runtime.logs import event
from dfslib.transfer.metadata_files import list_files
from dfslib.transfer.peer_session import PeerSession
from dfslib.wire.positions import Position, parse_position

log = logging.getLogger("dfs.checkpoint")

_ASK_S: Final = 120.0
"""A disk that has just been started reads a thousand files for a list."""
_PATIENCE_S: Final = 5.0
"""A datanode waits 10 s for the answer to its join; what takes longer is there when it comes again."""
_ASKED_MAX: Final = 100
"""Datanodes that are asked at a time."""
Newest = Header | FileName | None
"""The header of a datanode's newest copy, or its name alone where that cannot be read; None where it has none."""


class _Asked(NamedTuple):
    """Lasts over several joins, where a datanode takes long to answer."""

    joiner: Joiner
    task: asyncio.Task[Newest | DfsError]


class Comparing:
    def __init__(self, engine: MetadataEngine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
        self._asked: dict[NodeId, _Asked] = {}
        self._session: PeerSession | None = None

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    async def compare(self, joiner: Joiner) -> Heard:
        """Raises InvalidArgument for a position that is none, Unavailable where the datanode has to be asked and does
        not answer in time: it is to come again."""
        told = parse_position(joiner.position) if joiner.position else None
        brought = f"was brought commit {told.number} of epoch {told.epoch} by run {told.run.hex()}" if told else ""
        if told is not None and (place := self.place(told)) is not Place.APART:
            return self._heard(joiner, place, brought)
        newest = await self._newest(joiner)
        if isinstance(newest, Header) and (position := newest.position) is not None and (told or position) <= position:
            return self._heard(joiner, self._place_of_copy(newest), f"has {described(newest)}")
        if told is not None:
            return self._heard(joiner, self.place(told), brought)
        if newest is not None:  # of a release that goes by numbers
            ours = (self._cluster.epoch, self._engine.history.head.number)
            place = Place.LATER if (newest.epoch, newest.last) > ours else Place.PAST
            return self._heard(joiner, place, f"has commit {newest.last} of epoch {newest.epoch}")
        return Heard(Place.PAST, "")

    def _heard(self, joiner: Joiner, place: Place, what: str) -> Heard:
        if place is Place.PAST:
            return Heard(place, "")
        where = "behind the end of" if place is Place.LATER else "which is not in the past of"
        here = described_commit(self._cluster.epoch, self._engine.history.head)
        return Heard(place, f"datanode {joiner.node[:8]} at {joiner.url} {what}, {where} the metadata here, {here}")

    def place(self, position: Position) -> Place:
        """Of a commit of which no more is known than a datanode remembers."""
        if position.epoch != self._cluster.epoch:
            return Place.LATER if position.epoch > self._cluster.epoch else Place.PAST
        return place_of(position.run, position.number, position.chain, self._engine.history)

    async def close(self) -> None:
        tasks = [asked.task for asked in self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _place_of_copy(self, header: Header) -> Place:
        if header.epoch != self._cluster.epoch or header.history is None:
            return Place.LATER if header.epoch > self._cluster.epoch else Place.PAST
        return place_of_history(header.history, self._engine.history)

    async def _newest(self, joiner: Joiner) -> Newest:
        """Raises Unavailable."""
        asked = self._asked.get(joiner.node)
        if asked is None or asked.joiner != joiner:
            if asked is not None:
                asked.task.cancel()
            asked = self._asked[joiner.node] = self._begin_to_ask(joiner)
        done, _ = await asyncio.wait({asked.task}, timeout=_PATIENCE_S)
        if not done or asked.task.cancelled():
            raise Unavailable(f"the copies of the metadata on datanode {joiner.node} are being looked at")
        if self._asked.get(joiner.node) is asked:
            del self._asked[joiner.node]
        found = asked.task.result()
        if isinstance(found, DfsError):
            raise Unavailable(f"datanode {joiner.node} does not tell what metadata it has: {found}") from found
        return found

    def _begin_to_ask(self, joiner: Joiner) -> _Asked:
        if len(self._asked) >= _ASKED_MAX:  # those that are done never came again
            self._asked = {node: asked for node, asked in self._asked.items() if not asked.task.done()}
        if len(self._asked) >= _ASKED_MAX:
            raise Unavailable("the copies of the metadata on many datanodes are being looked at")
        return _Asked(joiner, asyncio.create_task(self._ask(joiner.url), name=f"newest copy of {joiner.url}"))

    async def _ask(self, url: str) -> Newest | DfsError:
        assert self._session is not None
        try:
            async with asyncio.timeout(_ASK_S):
                names = [name for file in await list_files(self._session, url) if (name := parse_name(file.name))]
                if not names:
                    return None
                newest = max(names, key=lambda name: (name.epoch, name.last, name.first))
                try:
                    return await newest_header(self._session, url, names) or newest
                except Unavailable as error:  # it reads and checks all of a file before it sends any of it
                    log.warning(event("copies cannot be looked at", url=url, reason=error))
                    return newest
        except TimeoutError:
            return Unavailable("it takes too long")
        except DfsError as error:
            return error
