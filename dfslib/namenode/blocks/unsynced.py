"""Which datanodes hold blocks in memory only, and of which files: what an fsync of a file has to wait for.

A mount's close leaves its blocks in the datanodes' memory; they are told to sync a few seconds later, or at once
when somebody asks for it. What a datanode held before it joined is not known, so it is told to sync then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from dfslib.errors import DfsError, Unavailable
from dfslib.model import InodeId, NodeId
from dfslib.namenode.membership.registry import Registry
from dfslib.runtime.logs import event
from dfslib.transfer.peer_session import PeerSession, sync_datanode

log = logging.getLogger("dfs.unsynced")

class _Datanode:
    """One datanode's debts. `before_join`: blocks that nobody counted. `begun`: how many syncs of it were; `done`: the
    number of the last one that succeeded."""

    def __init__(self) -> None:
        self.inodes: set[InodeId] = set()
        self.before_join = True
        self.syncing: frozenset[InodeId] = frozenset()
        self.syncing_all = False
        self.run: asyncio.Task[None] | None = None
        self.begun = 0
        self.done = 0

    def owes(self, ino: InodeId) -> bool:
        return self.before_join or ino in self.inodes

    def is_paying(self, ino: InodeId) -> bool:
        return self.run is not None and (self.syncing_all or ino in self.syncing)


class Unsynced:
    def __init__(self, registry: Registry, monotonic: Callable[[], float]) -> None:
        self._registry = registry
        self._monotonic = monotonic
        self._nodes: dict[NodeId, _Datanode] = {}
        self._session: PeerSession | None = None

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    def joined(self, node: NodeId) -> None:
        """What it holds from before is not known."""
        self._nodes.setdefault(node, _Datanode()).before_join = True

    def note(self, ino: InodeId, nodes: Iterable[NodeId]) -> None:
        """Blocks of a file were committed that these datanodes have in memory. To be called before anyone is
        told of the commit."""
        for node in nodes:
            self._nodes.setdefault(node, _Datanode()).inodes.add(ino)

    async def sync(self, ino: InodeId) -> None:
        """Return when all committed blocks of a file are on the disks of the datanodes that are there.

        A datanode that is lost meanwhile does not count, as long as another one has synced. Raises
        Unavailable, or what the datanodes answered, where none has.
        """
        owing = [node for node, debts in self._nodes.items() if debts.owes(ino) or debts.is_paying(ino)]
        there = {node.id for node in self._registry.readable(self._monotonic())}
        wanted = [node for node in owing if node in there]
        if owing and not wanted:
            raise Unavailable("none of the datanodes that hold the file's last blocks is there")
        results = await asyncio.gather(*(self._pay(node, ino) for node in wanted), return_exceptions=True)
        failures = [result for result in results if result is not None]
        if failures and len(failures) == len(results):
            raise failures[0]

    async def run_once(self) -> None:
        """Have all datanodes that are there sync what they have in memory."""
        runs: dict[NodeId, asyncio.Task[None]] = {}
        for node in self._registry.readable(self._monotonic()):
            debts = self._nodes.setdefault(node.id, _Datanode())
            if debts.run is None and (debts.before_join or debts.inodes):
                runs[node.id] = self._start(node.id, debts)
        for node_id, run in runs.items():
            try:
                await asyncio.shield(run)
            except DfsError as error:
                log.warning(event("datanode did not sync", node=node_id, error=error, action="asked again"))

    async def close(self) -> None:
        """End what runs."""
        runs = [debts.run for debts in self._nodes.values() if debts.run is not None]
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    async def _pay(self, node: NodeId, ino: InodeId) -> None:
        """Wait for the sync that has in it what was written of the file up to now; begin it when that before it has
        ended. What is written while this waits is another one's to wait for: else it might never end."""
        debts = self._nodes[node]
        wanted = debts.begun + 1 if debts.owes(ino) else debts.begun if debts.is_paying(ino) else 0
        while debts.done < wanted:
            run = debts.run or self._start(node, debts)
            if debts.begun < wanted:
                await asyncio.wait([run])
            else:
                await asyncio.shield(run)

    def _start(self, node: NodeId, debts: _Datanode) -> asyncio.Task[None]:
        debts.syncing, debts.inodes = frozenset(debts.inodes), set()
        debts.syncing_all, debts.before_join = debts.before_join, False
        debts.begun += 1
        debts.run = run = asyncio.create_task(self._run(node, debts), name=f"sync-{node}")
        run.add_done_callback(_look_at)  # those who waited for it may all have gone
        return run

    async def _run(self, node: NodeId, debts: _Datanode) -> None:
        done = False
        try:
            await self._request(node)
            done = True
            debts.done = debts.begun
        finally:
            if not done:
                debts.inodes |= debts.syncing
                debts.before_join |= debts.syncing_all
            debts.run, debts.syncing, debts.syncing_all = None, frozenset(), False

    async def _request(self, node: NodeId) -> None:
        datanode = self._registry.get(node)
        if datanode is None or self._session is None:
            raise Unavailable(f"datanode {node} is gone")
        await sync_datanode(self._session, datanode.url)


def _look_at(run: asyncio.Task[None]) -> None:
    if not run.cancelled():
        run.exception()
