"""Where an upgrade stands, and its end: the cluster's level is raised, after which there is no way back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from dfslib.errors import InvalidArgument
from dfslib.model import NodeId
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import MetadataEngine
from dfslib.namenode.namespace import records
from dfslib.namenode.sessions.table import Sessions
from dfslib.namenode.upgrade import standing
from dfslib.runtime.logs import event
from dfslib.runtime.tasks import Tasks
from dfslib.wire.features import NEWEST_LEVEL, VERSION, Role, lacking, named
from dfslib.wire.messages import UpgradeBody, UpgradeMountBody, UpgradeNodeBody
from dfslib.wire.session import LevelRaised

log = logging.getLogger("dfs.upgrade")


class Upgrade:
    def __init__(
        self,
        engine: MetadataEngine,
        cluster: Cluster,
        registry: Registry,
        sessions: Sessions,
        to_move: Callable[[NodeId], int | None],
        tasks: Tasks,
        monotonic: Callable[[], float],
    ) -> None:
        """`to_move`: how many blocks of a drained datanode lack copies elsewhere; None while that is not known."""
        self._engine = engine
        self._cluster = cluster
        self._registry = registry
        self._sessions = sessions
        self._to_move = to_move
        self._tasks = tasks
        self._monotonic = monotonic
        self._raising: asyncio.Task[None] | None = None

    def status(self) -> UpgradeBody:
        """Who has come with what, and who stands in the way."""
        nodes, mounts = self._nodes(), self._mounts()
        level = self._cluster.level.current
        return UpgradeBody(
            level=level,
            newest_level=NEWEST_LEVEL,
            version=VERSION,
            features=named(Role.NAMENODE),
            possible=level < NEWEST_LEVEL and not _obstacles(nodes, mounts),
            nodes=nodes,
            mounts=mounts,
        )

    async def finalize(self) -> UpgradeBody:
        """Raise the cluster's level to the newest one; durable when it returns. Does nothing where it is there.

        Raises InvalidArgument, and changes nothing, where somebody stands in the way; what the store fails with. If
        the caller is cancelled, it is done all the same, or not at all.
        """
        level = self._cluster.level
        if self._raising is None and level.current < NEWEST_LEVEL:
            if obstacles := _obstacles(self._nodes(), self._mounts()):
                raise InvalidArgument(standing.refusal(level.current, obstacles))
            level.demanded = NEWEST_LEVEL  # in the same step: nobody comes in who was not looked at
            self._raising = self._tasks.spawn(self._raise(), "finalize")
        if self._raising is not None:
            await asyncio.shield(self._raising)
        return self.status()

    async def _raise(self) -> None:
        level = self._cluster.level
        before = level.current
        try:
            await self._engine.transact(lambda txn: records.raise_level(txn, NEWEST_LEVEL))
        finally:
            level.opened(self._engine.read(records.get_level))
            self._raising = None
        log.warning(event("upgrade finalized", level=level.current, before=before))
        for node in self._registry.all():
            if lacking(Role.DATANODE, node.features, level.current):
                self._registry.dismiss(node.id)
        for session in self._sessions.all():
            session.send(LevelRaised(level.current))

    def _nodes(self) -> list[UpgradeNodeBody]:
        now = self._monotonic()
        found = []
        for node in self._registry.all():
            state = self._registry.state(node, now)
            obstacle = standing.of_datanode(
                state=state,
                present=node.present,
                drained=node.drained,
                to_move=self._to_move(node.id),
                features=node.features,
                level=NEWEST_LEVEL,
            )
            found.append(UpgradeNodeBody(node.id, node.url, state.value, node.version, sorted(node.features), obstacle))
        return found

    def _mounts(self) -> list[UpgradeMountBody]:
        self._sessions.load()  # those of before a restart of the namenode count, too
        found = []
        for session in self._sessions.all():
            obstacle = standing.of_mount(
                back=not session.known_before or session.connection is not None,
                features=session.features,
                level=NEWEST_LEVEL,
            )
            connected = session.connection is not None
            found.append(UpgradeMountBody(session.name, connected, session.version, sorted(session.features), obstacle))
        return sorted(found, key=lambda mount: mount.name)


def _obstacles(nodes: Sequence[UpgradeNodeBody], mounts: Sequence[UpgradeMountBody]) -> list[str]:
    found = [f"datanode {node.id[:8]} ({node.url}) {node.obstacle}" for node in nodes if node.obstacle]
    return found + [f"mount {mount.name} {mount.obstacle}" for mount in mounts if mount.obstacle]
