"""Which datanodes hold blocks in memory only, and of which files: what an fsync of a file has to wait for.

A mount's close leaves its blocks in the datanodes' memory; they are told to sync a few seconds later, or at once
when somebody asks for it. What a datanode held before it joined is not known, so it is told to sync then.

A datanode whose disk fails may lose a block that it had in memory, and tells so before it says again that it has
synced. So what counts is each block: an fsync has succeeded when each one of the file is on the disk of some datanode
that has it still, as the metadata says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from dfslib.errors import DfsError, InputOutput, NotFound, Unavailable
from dfslib.model import BlockId, BlockRef, InodeId, NodeId, format_block
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn
from dfslib.namenode.namespace import content, records
from dfslib.runtime.logs import event
from dfslib.transfer.peer_session import PeerSession, sync_datanode

log = logging.getLogger("dfs.unsynced")

_LOOKED_AT: Final = 200
"""Blocks in one step of the event loop: a millisecond."""
_ENOUGH: Final = 2
_LEAST_GRACE_S: Final = 1.0
_GRACE_FACTOR: Final = 4
"""As for a block that is written to several (fan_out.py)."""
_COUNTED_MAX: Final = 100_000
"""Files; one that is forgotten is looked at once more."""


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

    @property
    def may_owe_anything(self) -> bool:
        return self.before_join or (self.run is not None and self.syncing_all)

    def is_paying(self, ino: InodeId) -> bool:
        return self.run is not None and (self.syncing_all or ino in self.syncing)


class Unsynced:
    def __init__(
        self, engine: MetadataEngine, registry: Registry, in_flight: InFlight, monotonic: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._in_flight = in_flight
        self._monotonic = monotonic
        self._nodes: dict[NodeId, _Datanode] = {}
        self._blocks: dict[InodeId, set[BlockId]] = {}
        """Blocks of files that are not known to be on any disk."""
        self._counted: set[InodeId] = set()
        """Files of which all that was written before this process began has been looked at."""
        self._session: PeerSession | None = None

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    def joined(self, node: NodeId) -> None:
        """What it holds from before is not known."""
        self._nodes.setdefault(node, _Datanode()).before_join = True

    def note(self, ino: InodeId, blocks: Collection[BlockRef]) -> None:
        """Blocks of a file are committed that their datanodes have in memory. To be called before anyone is told of
        the commit."""
        for ref in blocks:
            self._blocks.setdefault(ino, set()).add(ref.block)
            for node in ref.nodes:
                self._nodes.setdefault(node, _Datanode()).inodes.add(ino)

    def shared(self, source: InodeId, target: InodeId) -> None:
        """A file gets ranges of another one, whose blocks may be in memory only. To be called as `note`."""
        if blocks := self._blocks.get(source):
            self._blocks.setdefault(target, set()).update(blocks)
        for debts in self._nodes.values():
            if source in debts.inodes or debts.is_paying(source):
                debts.inodes.add(target)

    async def sync(self, ino: InodeId) -> None:
        """Return when each committed block of a file is on the disk of some datanode that has it.

        A datanode that is lost meanwhile, or whose disk fails, does not count, as long as another one has synced.
        Raises Unavailable, or what the datanodes answered, where a block is on no disk; InputOutput where it is lost.
        """
        blocks = set(self._blocks.get(ino, ()))
        owing = [node for node, debts in self._nodes.items() if debts.owes(ino) or debts.is_paying(ino)]
        uncounted = ino not in self._counted and self._is_uncounted()
        there = {node.id for node in self._registry.readable(self._monotonic())}
        wanted = [node for node in owing if node in there]
        paying = {asyncio.create_task(self._pay(node, ino)): node for node in wanted}
        try:
            late = await _most_of(paying)
            if uncounted:
                blocks |= await asyncio.to_thread(self._engine.read, lambda txn: _blocks_of(txn, ino))
            absent = set(owing) - set(wanted)
            lost = await self._look_at(ino, blocks, absent | _unpaid(paying))
            if lost is not None and late:  # it is nowhere else
                await asyncio.wait(late)
                lost = await self._look_at(ino, blocks, absent | _unpaid(paying))
            failures = [task.exception() for task in paying if task.done()]
            unpaid = absent | _unpaid(paying)
        finally:
            for task in paying:
                task.cancel()
            await asyncio.gather(*paying, return_exceptions=True)
        if lost is None:
            if uncounted:
                self._note_counted(ino)
            return
        for failure in failures:
            if failure is not None:
                raise failure
        if unpaid or uncounted:
            raise Unavailable("none of the datanodes that hold the file's last blocks is there")
        raise InputOutput(f"block {format_block(lost)} was lost before it was on disk")

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
        for ino in list(self._blocks):
            if not any(debts.owes(ino) or debts.is_paying(ino) for debts in self._nodes.values()):
                await self._look_at(ino, self._blocks.get(ino, ()), ())

    async def close(self) -> None:
        """End what runs."""
        runs = [debts.run for debts in self._nodes.values() if debts.run is not None]
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    def _note_counted(self, ino: InodeId) -> None:
        if len(self._counted) >= _COUNTED_MAX:
            self._counted.clear()
        self._counted.add(ino)

    def _is_uncounted(self) -> bool:
        """Whether there may be blocks in memory somewhere that were written before this process began."""
        debts = (self._nodes.get(node.id) for node in self._registry.all())
        return any(one is None or one.may_owe_anything for one in debts)

    async def _look_at(
        self, ino: InodeId, blocks: Iterable[BlockId], unpaid: Iterable[NodeId]
    ) -> BlockId | None:
        """Forget those of the blocks that are on some disk, or that nobody needs; one of the others, if there are any.
        The datanodes that are not `unpaid` have synced all that they have of the file, if they have come at all."""
        paid = self._nodes.keys() - unpaid
        found: BlockId | None = None
        for some in _batches(sorted(blocks)):
            left = self._engine.read(lambda txn, some=some: [one for one in some if _is_needed(txn, one, paid)])  # type: ignore[misc]
            found = found or next(iter(left), None)
            if (noted := self._blocks.get(ino)) is not None:
                # One whose commit is on its way is not in the metadata yet.
                noted.difference_update(one for one in some if one not in left and one not in self._in_flight)
                if not noted:
                    del self._blocks[ino]
            await asyncio.sleep(0)
        return found

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
        run.add_done_callback(_retrieve)  # those who waited for it may all have gone
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


async def _most_of(paying: Collection[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until all have ended, or two have synced and the others have had a few times as long: a datanode that hangs
    is not to hold up everybody. Those that are late."""
    loop = asyncio.get_running_loop()
    started, late, left_s = loop.time(), set(paying), None
    while late:
        done, late = await asyncio.wait(late, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        if sum(task.done() and task.exception() is None for task in paying) >= _ENOUGH:
            left_s = max(_LEAST_GRACE_S, _GRACE_FACTOR * (loop.time() - started))
    return late


def _unpaid(paying: Mapping[asyncio.Task[None], NodeId]) -> set[NodeId]:
    return {node for task, node in paying.items() if not task.done() or task.exception() is not None}


def _batches(blocks: list[BlockId]) -> Iterator[list[BlockId]]:
    rest = iter(blocks)
    while some := list(islice(rest, _LOOKED_AT)):
        yield some


def _is_needed(txn: ReadTxn, block: BlockId, paid: Collection[NodeId]) -> bool:
    """Whether a file has the block, and none of its datanodes has it on disk."""
    record = records.find_block(txn, block)
    return (
        record is not None
        and record.live > 0
        and not record.deferred
        and not any(node in paid for node in record.nodes)
    )


def _blocks_of(txn: ReadTxn, ino: InodeId) -> set[BlockId]:
    try:
        return {extent.block for extent in content.read_extents(txn, ino)}
    except NotFound:
        return set()


def _retrieve(run: asyncio.Task[None]) -> None:
    if not run.cancelled():
        run.exception()
