"""Whom a store that has metadata speaks to: nobody before its datanodes have shown that it is no old copy of itself."""

from __future__ import annotations

import logging

from dfslib.errors import Unavailable
from dfslib.model import NodeId
from dfslib.namenode.checkpoint.cluster import Cluster, State
from dfslib.namenode.checkpoint.comparing import Comparing
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.quorum import HOW_TO_OPEN, Known, Outdated, Quorum, Serve, Verdict
from dfslib.namenode.metadata.engine import MetadataEngine
from dfslib.namenode.metadata.history import Place
from dfslib.namenode.namespace import records
from dfslib.runtime.logs import event
from dfslib.transfer.peer_session import PeerSession
from dfslib.wire.positions import parse_position

log = logging.getLogger("dfs.checkpoint")


class Admission:
    def __init__(self, engine: MetadataEngine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
        self._comparing = Comparing(engine, cluster)
        self._quorum: Quorum | None = None
        self._refused: dict[NodeId, tuple[Joiner, str]] = {}
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
    def has_refused(self) -> bool:
        return bool(self._refused)

    def begin(self) -> Verdict:
        """For a store that has just been opened: whom it waits for, if anybody."""
        known = [
            Known(record.node_id, record.url)
            for record in self._engine.read(lambda txn: list(records.scan_nodes(txn)))
            if not record.drained and not record.dead
        ]
        self._quorum = Quorum(known)
        return self._quorum.decide()

    def opened(self) -> None:
        """The store is served, and with it whoever was refused before that."""
        self._quorum = None
        self._refused.clear()
        self._tell()

    async def judge(self, joiner: Joiner) -> Verdict:
        """What a datanode of this cluster makes of the store. Raises Unavailable where it is not to join, or cannot be
        compared now; InvalidArgument."""
        heard = await self._comparing.compare(joiner)
        if self._quorum is not None:
            self._quorum.hear(joiner, heard)
            return self._quorum.decide()
        if heard.place is Place.LATER:
            return Outdated(heard.detail)
        if heard.place is Place.APART:
            if joiner.node not in self._refused or self._refused[joiner.node][0] != joiner:
                log.critical(event("datanode refused", reason=heard.detail, action="a person has to choose"))
                self._refused[joiner.node] = joiner, heard.detail
                self._tell()
            raise Unavailable(f"this namenode and another one have both gone on: {heard.detail}")
        if self._refused.pop(joiner.node, None) is not None:
            self._tell()
        return Serve()

    def agrees(self, position: str) -> bool:
        """Whether a datanode that has joined was brought nothing by another namenode since; it tells with each
        heartbeat. Raises InvalidArgument."""
        return not position or self._comparing.place(parse_position(position)) is Place.PAST

    def _tell(self) -> None:
        if self._cluster.state is State.OPEN:
            refused = "; ".join(detail for _, detail in self._refused.values())
            self._cluster.detail = f"{refused}; {HOW_TO_OPEN}" if refused else ""
