"""The life of the metadata as a whole: opened, begun, restored, or found to be out of date.

    the store has a cluster ──────────────────────────────► open
    it is empty ─► waiting ─► (datanodes tell) ─► restoring ─► open
                      └─► (all of them are new) ──────────────► open
    open ─► (a datanode has met a later epoch) ─► set aside; the process ends, and restores when it starts again
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dfslib.errors import DfsError, InvalidArgument, Unavailable
from dfslib.namenode.checkpoint.cluster import Cluster, State
from dfslib.namenode.checkpoint.format import name_of
from dfslib.namenode.checkpoint.hold import Hold
from dfslib.namenode.checkpoint.opening import Joiner, NewCluster, Opening, Restore, Wait
from dfslib.namenode.checkpoint.restoring import apply, clear, fetch, is_unfinished
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.create import make_root
from dfslib.runtime.logs import event
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.checkpoint")

_DECIDE_EVERY_S: Final = 0.2
_AGAIN_S: Final = 10.0
"""Until a restore that failed is tried anew; a datanode that comes meanwhile may have what was missing."""


class Keeper:
    def __init__(
        self,
        engine: MetadataEngine,
        registry: Registry,
        folder: Path,
        monotonic: Callable[[], float],
        *,
        new_cluster: bool,
    ) -> None:
        """`folder` is the metadata's; what is set aside and downloaded goes there, too."""
        self.cluster = Cluster()
        self.hold = Hold(engine, monotonic)
        self._engine = engine
        self._registry = registry
        self._folder = folder
        self._monotonic = monotonic
        self._opening = Opening(new_cluster=new_cluster)
        self._outdated = asyncio.Event()
        self._busy = asyncio.Lock()
        """Held while a restore runs, so that an operator's and our own do not meet."""
        self._session: PeerSession | None = None

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    async def load(self) -> None:
        """Open the store, if it has a cluster. Raises Unavailable for a store of a later format."""
        if self._engine.read(is_unfinished):
            log.warning(event("a restore was interrupted", action="it begins anew"))
            await clear(self._engine)
        record = self._engine.read(records.get_cluster)
        if record is None:
            await self._decide()
            return
        if record.format > records.FORMAT:
            raise Unavailable(f"the metadata has format {record.format}, this version knows {records.FORMAT}")
        self._open()

    def admit(self, joiner: Joiner) -> None:
        """Whether this datanode can be spoken to now. Raises Unavailable: it is to come again."""
        if self.cluster.state is State.OPEN:
            if joiner.cluster_id == self.cluster.id and joiner.epoch > self.cluster.epoch:
                self.cluster.state = State.WAITING
                self.cluster.detail = (
                    f"this metadata is of epoch {self.cluster.epoch}, and datanode {joiner.node} has met epoch "
                    f"{joiner.epoch}: it was restored elsewhere meanwhile"
                )
                self._outdated.set()
        else:
            self._opening.joined(joiner, self._monotonic())
        self.cluster.require_open()

    async def run_until_open(self) -> None:
        """Decide what an empty store becomes, and make it that."""
        while self.cluster.state is not State.OPEN and not self._outdated.is_set():
            try:
                async with self._busy:
                    await self._decide()
            except DfsError as error:
                self.cluster.state, self.cluster.detail = State.WAITING, str(error)
                log.critical(event("restore failed", reason=error, next_attempt_s=_AGAIN_S))
                await asyncio.sleep(_AGAIN_S)
            await asyncio.sleep(_DECIDE_EVERY_S)

    async def restore(self, source_url: str | None) -> None:
        """Restore now, from one datanode's copies or from those of all that have come.

        Raises InvalidArgument where there is metadata, or no datanode that was named has come; Unavailable where
        none has a copy that can be used.
        """
        async with self._busy:
            if self.cluster.state is State.OPEN:
                raise InvalidArgument("this namenode has metadata; it is restored into an empty one only")
            sources = [
                joiner
                for joiner in self._opening.joiners
                if joiner.cluster_id and source_url in (None, joiner.url.rstrip("/"))
            ]
            if not sources:
                raise InvalidArgument(f"no datanode of a cluster has come{f' from {source_url}' if source_url else ''}")
            if len({joiner.cluster_id for joiner in sources}) > 1:
                raise InvalidArgument("datanodes of several clusters have come: name one of them with 'from'")
            await self._restore(Restore(sources))

    async def wait_outdated(self) -> None:
        """Return when this metadata must not be served any more; then it has been set aside.

        Raises Unavailable, which ends the process: what it has in memory is out of date as well.
        """
        await self._outdated.wait()
        path = self._folder / f"outdated-{self.cluster.epoch:06}-{time.time_ns()}.checkpoint"
        header = await asyncio.to_thread(
            self._engine.read, lambda txn: write_snapshot(txn, self.cluster, path, rest=0)
        )
        await self._engine.transact(lambda txn: txn.put(keys.RESTORING, b""))
        log.critical(event("metadata set aside", path=path, was=name_of(header), reason=self.cluster.detail))
        raise Unavailable(f"{self.cluster.detail}. It was set aside as {path}; the next start restores the new one")

    async def _decide(self) -> None:
        decision = self._opening.decide(self._monotonic())
        if isinstance(decision, Wait):
            if decision.detail != self.cluster.detail:
                log.info(event("waiting for datanodes", reason=decision.detail))
            self.cluster.state, self.cluster.detail = State.WAITING, decision.detail
        elif isinstance(decision, NewCluster):
            await self._engine.transact(_begin)
            self._open()
            log.info(event("new cluster", id=self.cluster.id))
        else:
            await self._restore(decision)

    async def _restore(self, plan: Restore) -> None:
        assert self._session is not None
        cluster, started = self.cluster, self._monotonic()
        cluster.state, cluster.detail = State.RESTORING, "looking for the newest copy"
        try:
            fetched = await fetch(self._session, plan.sources, self._folder / "restore")

            def progress(done: int) -> None:
                cluster.detail = f"{done} keys written"

            await clear(self._engine)
            await apply(self._engine, fetched, progress)
        except BaseException:
            cluster.state, cluster.detail = State.WAITING, "the restore failed"
            raise
        self._open()
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((cluster.restored_until_ns or 0) / 1e9))
        seconds = round(self._monotonic() - started, 1)
        log.warning(event("metadata restored", until=until, files=len(fetched.paths), seconds=seconds))

    def _open(self) -> None:
        record = self._engine.read(records.get_cluster)
        assert record is not None
        restored = self._engine.read(records.get_restored)
        self.cluster.opened(record.cluster_id, record.epoch, restored.until_ns if restored else None)
        self.hold.load()
        self._registry.restore(self._engine.read(lambda txn: list(records.scan_nodes(txn))), self._monotonic())


def _begin(txn: Txn) -> None:
    now = time.time_ns()
    records.put_cluster(txn, records.ClusterRecord(uuid.uuid4().hex, now))
    make_root(txn, now)
