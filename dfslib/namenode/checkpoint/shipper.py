"""Keeps copies of the metadata on every datanode: a checkpoint from time to time, journals every few seconds.

A checkpoint is made by a process that checks all of the store as it writes (verification/): what was damaged on the
disk is never brought to the datanodes. Journals are what was committed, from memory. They go on while a checkpoint is
written, and before the first one is: they join on to what an earlier process has shipped, if nothing was committed in
between that it did not ship.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dfslib.model import NodeId
from dfslib.namenode.checkpoint.chains import Chain, best_chain
from dfslib.namenode.checkpoint.cluster import Cluster, State
from dfslib.namenode.checkpoint.folder import Folder
from dfslib.namenode.checkpoint.format import RUNS_KEPT, Header
from dfslib.namenode.checkpoint.journal import Journal, Pending
from dfslib.namenode.checkpoint.sender import Sender
from dfslib.namenode.membership.registry import Datanode, Registry
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn
from dfslib.namenode.namespace import records
from dfslib.namenode.verification.checking import CheckFailed
from dfslib.runtime.logs import event
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.checkpoint")

_JOURNALS_MAX: Final = 1000
_JOURNAL_BYTES_MIN: Final = 16 << 20
"""Journals may grow to half of the checkpoint, and to this at least, before the next checkpoint is due."""
_PATIENCE_S: Final = 2.0
"""A round waits so long for a checkpoint and for datanodes; what takes longer goes on beside the next rounds."""
_LAST_S: Final = 10.0
_AGAIN_S: Final = 30.0
"""After a checkpoint that could not be written: each attempt is a process of its own."""

WriteCheckpoint = Callable[[Header, Path], Awaitable[Header]]
"""Writes a checkpoint of the last commit to a path, durably, about which a header tells; its own header. Raises
CheckFailed where the store is not right, or that could not be found out; OSError."""


class Shipper:
    def __init__(
        self,
        engine: MetadataEngine,
        registry: Registry,
        cluster: Cluster,
        journal: Journal,
        write_checkpoint: WriteCheckpoint,
        folder: Path,
        wall_ns: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        """`folder` is the shipper's own; what lies in it is deleted at the start."""
        self._engine = engine
        self._registry = registry
        self._cluster = cluster
        self._journal = journal
        self._write_checkpoint = write_checkpoint
        self._wall_ns = wall_ns
        self._monotonic = monotonic
        self._folder = Folder(folder)
        self._sender = Sender(self._folder, self._count, wall_ns)
        self._chain: Chain | None = None
        self._reached = 0
        """The last commit that was taken from the journal: a chain that ends before it has a gap."""
        self._copied = (0, 0)
        """The epoch and the number of the last commit that a datanode has, with all before it."""
        self._time_ns = 0
        """When that was."""
        self._making: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._not_before_s = monotonic()
        """A checkpoint is not tried again before."""

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._sender.use(session)
        self._folder.begin()

    def joined(self, node: NodeId) -> None:
        """What it has is not known any more."""
        self._sender.joined(node)

    @property
    def failures(self) -> int:
        return self._sender.failures

    def shipped_bytes(self) -> int:
        """The size of the present chain."""
        return sum(made.size for made in self._folder.files.values())

    def complete(self) -> int:
        """How many datanodes have the present chain."""
        return len(self._sender.complete(self._nodes()))

    async def run_once(self) -> None:
        """Ship what there is. Does nothing while no datanode is there to take it."""
        nodes = self._nodes()
        if self._cluster.state is not State.OPEN or not nodes:
            return
        await self._take()
        if self._making is None and self._is_due() and self._monotonic() >= self._not_before_s:
            self._making = asyncio.create_task(self._make(), name="checkpoint")
            await asyncio.wait({self._making}, timeout=_PATIENCE_S)
        if self._making is not None and self._making.done():
            made, self._making = self._making, None
            await made
        await self._deliver(nodes, _PATIENCE_S)

    async def close(self) -> None:
        """Ship what was changed since the last round, within a bounded time, and end all that runs."""
        if self._making is not None:
            self._making.cancel()
            log.info(event("checkpoint given up", reason="the namenode stops"))
        try:
            async with asyncio.timeout(_LAST_S):
                if self._making is not None:
                    await asyncio.wait({self._making})
                if self._cluster.state is State.OPEN and (nodes := self._nodes()):
                    await self._take()
                    await self._deliver(nodes, _LAST_S)
        except (TimeoutError, OSError) as error:
            log.warning(event("the last changes are not copied", reason=str(error) or "it takes too long"))
        await self._sender.close()
        self._journal.close()

    async def _deliver(self, nodes: Sequence[Datanode], patience_s: float) -> None:
        await self._sender.deliver(nodes, self._chain, patience_s)
        epoch, last = self._copied
        try:
            await asyncio.to_thread(self._journal.copied, epoch, last)
        except OSError as error:
            log.warning(event("commits that are copied cannot be given up here", reason=error))

    def _nodes(self) -> list[Datanode]:
        return self._registry.readable(self._monotonic())

    def _is_due(self) -> bool:
        """Whether a whole checkpoint is to be made."""
        chain, files = self._chain, self._folder.files
        if chain is None or chain.reach[1] < self._reached:
            return True
        allowed = max(_JOURNAL_BYTES_MIN, files[chain.checkpoint].size // 2)
        return len(chain.journals) >= _JOURNALS_MAX or sum(files[name].size for name in chain.journals) > allowed

    async def _take(self) -> None:
        """Make what was committed since the last time a file. It is made to its end, even if this is cancelled."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        self._writing = asyncio.create_task(self._write(self._journal.take()), name="journal")
        await asyncio.shield(self._writing)

    async def _write(self, pending: Pending) -> None:
        self._time_ns = pending.taken_ns
        if pending.lost:
            self._reached = self._engine.read(_number)
            return
        if not pending.commits:
            return
        first, self._reached = pending.commits[0][0], pending.commits[-1][0]
        header = replace(
            self._header("journal", pending.taken_ns, first, self._reached),
            head=pending.head,
            runs=tuple(run for run in self._engine.history.runs if run.first <= self._reached)[-RUNS_KEPT:],
            before=pending.before,
        )
        try:
            made = await asyncio.to_thread(self._folder.write_journal, header, pending.commits)
        except OSError as error:
            log.warning(event("changes could not be written", reason=error, action="making a whole checkpoint"))
            return
        self._folder.enter(made)
        self._extend()

    def _header(self, kind: str, time_ns: int, first: int = 0, last: int = 0) -> Header:
        nodes = tuple(node.id for node in self._registry.all() if not node.drained and not node.dead)
        level = self._engine.read(records.get_level)  # what was taken is committed, and so it tells at least its level
        return Header(kind, self._cluster.id, self._cluster.epoch, first, last, time_ns, level, nodes)

    async def _make(self) -> None:
        """Write a checkpoint and begin a new chain with it."""
        started = self._monotonic()
        about = self._header("checkpoint", self._wall_ns())
        try:
            made = await self._folder.write_checkpoint(lambda path: self._write_checkpoint(about, path))
        except (CheckFailed, OSError) as error:
            self._not_before_s = self._monotonic() + _AGAIN_S
            log.warning(event("no checkpoint could be written", reason=error, next_attempt_s=_AGAIN_S))
        else:
            self._folder.enter(made)
            self._extend()
            seconds = round(self._monotonic() - started, 1)
            log.info(event("checkpoint written", name=made.name, bytes=made.size, seconds=seconds))

    def _extend(self) -> None:
        """The chain is the best of the folder's files; those that it does not need are given up."""
        chain = best_chain(list(self._folder.files))
        if chain is not None:
            self._chain = chain
            self._folder.keep_only({*chain.files, *(n for n in self._folder.files if n.last > chain.reach[1])})

    def _count(self, chain: Chain) -> None:
        self._copied = max(self._copied, chain.reach)
        if chain.reach[1] >= self._reached:
            self._cluster.copied_until_ns = self._time_ns


def _number(txn: ReadTxn) -> int:
    return txn.number
