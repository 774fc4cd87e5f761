"""Keeps copies of the metadata on every datanode: a checkpoint from time to time, journals every few seconds.

What is shipped lies in a folder of the namenode's, too, so that a datanode that lacks a file is sent it again.
The chain before the present one is kept, and only given up when the present one is complete on every datanode
that is there. Losing all of this loses no metadata: it is made anew from the engine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dfslib.errors import DfsError, NotFound
from dfslib.model import NodeId
from dfslib.namenode.checkpoint.chains import Chain, best_chain
from dfslib.namenode.checkpoint.cluster import Cluster, State
from dfslib.namenode.checkpoint.format import Commit, Encoder, FileName, Header, name_of, parse_name
from dfslib.namenode.checkpoint.journal import Journal
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.membership.registry import Datanode, Registry
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace import records
from dfslib.runtime.logs import event
from dfslib.transfer.metadata_files import delete_file, list_files, put_file
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.checkpoint")

_FRAME_COMMITS: Final = 1000
_REST: Final = 3.0
"""While a checkpoint is written, this many times as long is rested as worked: requests come first."""
_JOURNALS_MAX: Final = 500
_JOURNAL_BYTES_MIN: Final = 16 << 20
"""Journals may grow to half of the checkpoint, and to this at least, before the next checkpoint is due."""
_SEND_S: Final = 60.0
"""A datanode that does not take a journal within this time is left out, and caught up with later."""


class Shipper:
    def __init__(
        self,
        engine: MetadataEngine,
        registry: Registry,
        cluster: Cluster,
        journal: Journal,
        folder: Path,
        monotonic: Callable[[], float],
    ) -> None:
        """`folder` is the shipper's own; what lies in it is deleted at the start."""
        self._engine = engine
        self._registry = registry
        self._cluster = cluster
        self._journal = journal
        self._folder = folder
        self._monotonic = monotonic
        self._session: PeerSession | None = None
        self._chain: Chain | None = None
        self._sizes: dict[FileName, int] = {}
        self._held: dict[NodeId, set[FileName]] = {}
        """What datanodes are known to have; those that are missing here are asked."""
        self.failures = 0

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session
        self._folder.mkdir(exist_ok=True)
        for path in self._folder.iterdir():
            path.unlink()

    def joined(self, node: NodeId) -> None:
        """What it has is not known any more."""
        self._held.pop(node, None)

    async def run_once(self) -> None:
        """Ship what there is. Does nothing while no datanode is there to take it."""
        nodes = self._registry.readable(self._monotonic())
        if self._cluster.state is not State.OPEN or not nodes:
            return
        if self._chain is None:
            await self._begin(nodes)
        time_ns = await self._write()
        await asyncio.gather(*(self._bring(node) for node in nodes))
        assert self._chain is not None
        complete = [node for node in nodes if self._held.get(node.id, set()).issuperset(self._chain.files)]
        if complete:
            self._cluster.copied_until_ns = time_ns
        if len(complete) == len(nodes):
            await self._delete_old(nodes, self._chain)

    def shipped_bytes(self) -> int:
        """The size of the present chain."""
        return sum(self._sizes.values())

    def _is_long(self) -> bool:
        assert self._chain is not None
        journals = sum(self._sizes[name] for name in self._chain.journals)
        allowed = max(_JOURNAL_BYTES_MIN, self._sizes[self._chain.checkpoint] // 2)
        return len(self._chain.journals) >= _JOURNALS_MAX or journals > allowed

    async def _begin(self, nodes: Sequence[Datanode]) -> None:
        """Make sure that what this store ships is newer than all that the datanodes have.

        It is not where somebody has put back an old copy of the namenode's folder: then a new epoch begins.
        """
        await asyncio.gather(*(self._bring(node) for node in nodes))
        found = best_chain(name for held in self._held.values() for name in held)
        if found is not None and found.reach > (self._cluster.epoch, self._engine.read(lambda txn: txn.number)):
            epoch = found.reach[0] + 1

            def commit(txn: Txn) -> None:
                record = records.get_cluster(txn)
                assert record is not None
                records.put_cluster(txn, replace(record, epoch=epoch))

            await self._engine.transact(commit)
            log.warning(event("the datanodes have newer copies of the metadata than this store", new_epoch=epoch))
            self._cluster.epoch = epoch

    async def _write(self) -> int:
        """Bring the chain up to date in the shipper's folder; the time up to which it has everything, in ns."""
        pending = self._journal.take()
        try:
            if self._chain is None or pending.lost or self._is_long():
                return await asyncio.to_thread(self._write_checkpoint)
            if pending.commits:
                await asyncio.to_thread(self._write_journal, pending.commits, pending.taken_ns)
        except BaseException:
            self._chain = None  # what was taken is in no file: only a whole checkpoint has it now
            raise
        return pending.taken_ns

    def _write_checkpoint(self) -> int:
        """The time up to which it contains everything, in ns."""
        temporary = self._folder / "new"
        started = self._monotonic()
        about = Header("checkpoint", self._cluster.id, self._cluster.epoch, 0, 0, time.time_ns(), nodes=self._named())
        header = self._engine.read(lambda txn: write_snapshot(txn, about, temporary, lambda s: time.sleep(_REST * s)))
        name = name_of(header)
        self._keep(temporary, name)
        self._chain = Chain(name, ())
        seconds = round(self._monotonic() - started, 1)
        log.info(event("checkpoint written", name=name, bytes=self._sizes[name], seconds=seconds))
        return header.time_ns

    def _write_journal(self, commits: list[Commit], time_ns: int) -> None:
        assert self._chain is not None
        first, last = commits[0][0], commits[-1][0]
        header = Header("journal", self._cluster.id, self._cluster.epoch, first, last, time_ns, nodes=self._named())
        temporary = self._folder / "new"
        with temporary.open("wb") as file:
            encoder = Encoder()
            file.write(encoder.header(header))
            for start in range(0, len(commits), _FRAME_COMMITS):
                file.write(encoder.records(commits[start : start + _FRAME_COMMITS]))
            file.write(encoder.end())
        name = name_of(header)
        self._keep(temporary, name)
        if last > self._chain.reach[1]:  # else the checkpoint has all of it
            self._chain = Chain(self._chain.checkpoint, (*self._chain.journals, name))

    def _named(self) -> tuple[str, ...]:
        return tuple(node.id for node in self._registry.all() if not node.drained)

    def _keep(self, temporary: Path, name: FileName) -> None:
        path = self._folder / str(name)
        temporary.rename(path)
        self._sizes[name] = path.stat().st_size

    # Sending

    async def _bring(self, node: Datanode) -> None:
        """Have a datanode hold every file of the chain. A failure is logged and made up for the next time."""
        try:
            async with asyncio.timeout(_SEND_S + self.shipped_bytes() / (1 << 20)):
                await self._send(node)
        except TimeoutError:
            self._failed(node, "it takes too long")
        except (DfsError, OSError) as error:
            self._failed(node, error)

    async def _send(self, node: Datanode) -> None:
        assert self._session is not None
        held = self._held.get(node.id)
        if held is None:
            files = await list_files(self._session, node.url)
            held = {name for file in files if (name := parse_name(file.name)) is not None}
            self._held[node.id] = held
        for name in self._chain.files if self._chain is not None else ():
            if name not in held:
                await put_file(self._session, node.url, str(name), self._folder / str(name))
                held.add(name)

    async def _delete_old(self, nodes: Sequence[Datanode], chain: Chain) -> None:
        """Give up what neither the chain nor the best one before it needs; every datanode has all of the chain."""
        assert self._session is not None
        everything = {name for node in nodes for name in self._held[node.id]}
        before = best_chain(everything - set(chain.files))
        kept = {*chain.files, *(before.files if before is not None else ())}
        for name in set(self._sizes) - kept:
            (self._folder / str(name)).unlink()
            del self._sizes[name]
        for node in nodes:
            held = self._held[node.id]
            for name in held - kept:
                try:
                    await delete_file(self._session, node.url, str(name))
                except NotFound:
                    pass
                except DfsError as error:
                    self._failed(node, error)
                    break
                held.discard(name)

    def _failed(self, node: Datanode, reason: object) -> None:
        self.failures += 1
        self._held.pop(node.id, None)
        log.warning(event("datanode lacks a copy of the metadata", node=node.id, url=node.url, reason=reason))
