"""Whom a store that has metadata speaks to: nobody before its datanodes have shown that it is no old copy of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from dfslib.errors import Unavailable
from dfslib.model import NodeId
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.checkpoint.comparing import Comparing
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.quorum import HOW_TO_OPEN, Known, Outdated, Quorum, Serve, Verdict
from dfslib.namenode.metadata.engine import MetadataEngine
from dfslib.namenode.metadata.history import UNKNOWN_RUN, Place
from dfslib.namenode.namespace import records
from dfslib.runtime.logs import event
from dfslib.transfer.peer_session import PeerSession
from dfslib.wire.positions import parse_position

log = logging.getLogger("dfs.checkpoint")

_COMES_S: Final = 10.0
"""Datanodes try to join every half second: one that has not come for so long is gone, or was taken elsewhere."""


class _Refused(NamedTuple):
    joiner: Joiner
    detail: str
    at_s: float


class Admission:
    def __init__(
        self, engine: MetadataEngine, cluster: Cluster, monotonic: Callable[[], float], dead_after_s: float
    ) -> None:
        self._engine = engine
        self._comparing = Comparing(engine, cluster)
        self._monotonic = monotonic
        self._dead_after_s = dead_after_s
        self._quorum: Quorum | None = None
        self._dead_at_s = float("inf")
        """From when on datanodes that have not come count as dead."""
        self._refused: dict[NodeId, _Refused] = {}
        """Datanodes that came after the store was opened, and have what it has not and could not have."""

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._comparing.use(session)

    async def close(self) -> None:
        await self._comparing.close()

    @property
    def is_waiting(self) -> bool:
        """Whether there is metadata that is not served yet."""
        return self._quorum is not None

    @property
    def refusals(self) -> str:
        """Whom an open store refuses, and what to do, for people; empty where it refuses nobody that still comes."""
        now_s = self._monotonic()
        refused = [one.detail for one in self._refused.values() if now_s - one.at_s < _COMES_S]
        return f"{'; '.join(refused)}; {HOW_TO_OPEN}" if refused else ""

    def begin(self) -> None:
        """For a store that has just been opened: `decide` tells whom it waits for, if anybody."""
        known = [
            Known(record.node_id, record.url)
            for record in self._engine.read(lambda txn: list(records.scan_nodes(txn)))
            if not record.drained and not record.dead
        ]
        self._quorum = Quorum(known)
        if self._engine.history.head.run == UNKNOWN_RUN:  # a release that did not write down who was dead
            self._dead_at_s = self._monotonic() + self._dead_after_s

    def decide(self) -> Verdict:
        """Whether a store that waits may be served now."""
        assert self._quorum is not None
        return self._quorum.decide(silent_are_dead=self._monotonic() >= self._dead_at_s)

    def opened(self) -> None:
        """The store is served, and with it whoever was refused before that."""
        self._quorum = None
        self._refused.clear()

    async def judge(self, joiner: Joiner) -> Verdict:
        """What a datanode of this cluster makes of the store. Raises Unavailable where it is not to join, or cannot be
        compared now; InvalidArgument."""
        heard = await self._comparing.compare(joiner)
        if self._quorum is not None:
            self._quorum.hear(joiner, heard)
            return self.decide()
        before = self._refused.pop(joiner.node, None)
        if heard.place is Place.LATER:
            return Outdated(heard.detail)
        if heard.place is Place.APART:
            self._refused[joiner.node] = _Refused(joiner, heard.detail, self._monotonic())
            if before is None or before.joiner != joiner:
                log.critical(event("datanode refused", reason=heard.detail, action="a person has to choose"))
            raise Unavailable(f"this namenode and another one have both gone on: {heard.detail}")
        return Serve()

    def agrees(self, position: str) -> bool:
        """Whether a datanode that has joined was brought nothing by another namenode since; it tells with each
        heartbeat. Raises InvalidArgument."""
        return not position or self._comparing.place(parse_position(position)) is Place.PAST
