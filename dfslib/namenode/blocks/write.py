"""From bytes to a block on enough datanodes: placement, fan-out, and what counts as written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from dfslib.errors import DfsError, InputOutput, NoSpace, NotEnoughDatanodes, Unavailable
from dfslib.model import REPLICATION_DEFAULT, BlockId, BlockRef, NodeId, Origin
from dfslib.namenode.blocks.garbage import GarbageCollector
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.placement import Candidate, place
from dfslib.namenode.membership.registry import Registry
from dfslib.runtime.tasks import Tasks
from dfslib.transfer.block_client import BlockClient
from dfslib.transfer.fan_out import Delivery, FanOut, FanOutResult, Patience, Target, fan_out
from dfslib.transfer.peer_session import PeerSession

_DEFAULT_MIN_REPLICAS: Final = 2


class BlockWriter:
    """Writes new blocks. Each one is held in flight until the caller releases it."""

    def __init__(
        self,
        registry: Registry,
        in_flight: InFlight,
        collector: GarbageCollector,
        tasks: Tasks,
        new_id: Callable[[], BlockId],
        monotonic: Callable[[], float],
        *,
        replication: int,
        min_replicas: int | None,
        stall_timeout_s: float,
    ) -> None:
        self._registry = registry
        self._in_flight = in_flight
        self._collector = collector
        self._tasks = tasks
        self._new_id = new_id
        self._monotonic = monotonic
        self._replication = replication
        self._min_replicas = min_replicas
        self._stall_timeout_s = stall_timeout_s
        self._sent_to: dict[BlockId, dict[NodeId, int]] = {}
        """Of each block in flight: where it goes, and the process there (`Datanode.joins`) when it began to."""
        self._session: PeerSession | None = None
        self._client = BlockClient()
        self.on_short: Callable[[], None] = lambda: None
        """Called when a block was accepted with fewer copies than it was placed for."""

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    async def close(self) -> None:
        """End the kept connections."""
        await self._client.close()

    def copies(self, replication: int) -> int:
        """A file's replication with the cluster's default put in: a number, or REPLICATION_ALL."""
        return self._replication if replication == REPLICATION_DEFAULT else replication

    def required(self, copies: int) -> int:
        """Copies that must be on disk before a write counts."""
        required = self._min_replicas or min(_DEFAULT_MIN_REPLICAS, max(1, len(self._registry.all())))
        return min(required, copies) if copies > 0 else required

    def check_space(self, copies: int) -> None:
        """Raise NotEnoughDatanodes or NoSpace if a write has no chance now."""
        self._candidates(copies)

    async def write(
        self, data: bytes, origins: Sequence[Origin], copies: int, writers: int = 1, *, sync: bool = True
    ) -> BlockRef:
        """Store one block that is in memory, held in flight for so many writers. Without `sync` it is in the
        datanodes' memory then, and somebody has to see to it that they are told to sync (unsynced.py).

        Raises NotEnoughDatanodes or NoSpace; then nothing is held.
        """
        block, targets = self._start(copies, writers)
        stored = False
        try:
            delivery = Delivery(block, targets, origins, self._patience(copies), sync=sync)
            result = await fan_out(self._client, delivery, data)
            ref = self.accept(result, copies)
            stored = True
        finally:
            if not stored:
                for _ in range(writers):
                    self.release(block, [target.node for target in targets], used=False)
        return ref

    def grant(self, copies: int) -> tuple[BlockId, list[Target]]:
        """A new block that somebody else is going to write, and where; held in flight. Raises NotEnoughDatanodes or
        NoSpace."""
        return self._start(copies, 1)

    def stream(self, size: int | None, origins: Sequence[Origin], copies: int, home: NodeId | None = None) -> OpenBlock:
        """Begin a block that is sent while it arrives. Raises NotEnoughDatanodes or NoSpace.

        `home`: the first holder of the file's first block, to which its readers are sent; that one, if it
        gets this block too, keeps it cached.
        """
        block, targets = self._start(copies, 1)
        targets.sort(key=lambda target: target.node != home)
        assert self._session is not None
        delivery = Delivery(block, targets, origins, self._patience(copies), home=targets[0].node)
        fan = FanOut(self._session, delivery, size)
        return OpenBlock(self, fan, [target.node for target in targets], copies)

    def release(self, block: BlockId, nodes: Sequence[NodeId], *, used: bool) -> None:
        """A writer is done with a block. What nobody used is deleted from the datanodes."""
        unsure = self._in_flight.release(block, used=used)
        if not self._in_flight.is_held(block):
            self._doubt_successors(self._sent_to.pop(block, {}))
        if unsure:
            self._tasks.spawn(self._collector.discard([block], nodes), f"discard-{block:x}")

    def accepted_without(self, nodes: Collection[NodeId]) -> None:
        """A mount's block was accepted, and these, which it was granted on, did not answer that they have it: some may
        have it all the same, and it lacks copies."""
        for node in nodes:
            self._registry.gave_up(node)
        if nodes:
            self.on_short()

    def _doubt_successors(self, sent_to: Mapping[NodeId, int]) -> None:
        """What a process had acknowledged before it ended, its successor may lack: it may have been in memory only,
        or the volume is a copy. No report told that while the block was in flight, so the next one has to."""
        for node, joins in sent_to.items():
            if (datanode := self._registry.get(node)) is not None and datanode.joins != joins:
                self._registry.gave_up(node)

    def _patience(self, copies: int) -> Patience:
        return Patience(self._stall_timeout_s, self.required(copies))

    def _start(self, copies: int, writers: int) -> tuple[BlockId, list[Target]]:
        candidates = self._candidates(copies)
        block = self._new_id()
        targets = []
        sent_to = self._sent_to[block] = {}
        for node in place(candidates, block, copies):
            datanode = self._registry.get(node)
            assert datanode is not None
            targets.append(Target(node, datanode.url))
            sent_to[node] = datanode.joins
        for _ in range(writers):
            self._in_flight.hold(block)
        return block, targets

    def _candidates(self, copies: int) -> list[Candidate]:
        now = self._monotonic()
        alive = self._registry.alive(now)
        required = self.required(copies)
        writable = [node for node in alive if self._registry.is_writable(node, now)]
        quick = [node for node in writable if not self._registry.is_slow(node, now)]
        chosen = quick if len(quick) >= required else writable
        candidates = [Candidate(node.id, node.host, node.free) for node in chosen]
        if len(candidates) < required:
            if len(alive) >= required:
                raise NoSpace(f"{len(alive) - len(writable)} of {len(alive)} datanodes are full")
            raise NotEnoughDatanodes(f"{len(alive)} datanodes are alive, a write needs {required}")
        return candidates

    def accept(self, result: FanOutResult, copies: int) -> BlockRef:
        """The block, if enough datanodes have it; what failed is noted about the others."""
        for node, error in result.failures.items():
            if node not in result.slow:
                self._note(node, error)
            self._registry.gave_up(node)
        for node in result.slow:
            self._registry.slowed(node, self._monotonic())
        required = self.required(copies)
        if len(result.stored) < required:
            if any(isinstance(error, NoSpace) for error in result.failures.values()):
                raise NoSpace(f"only {len(result.stored)} datanodes had space, a write needs {required}")
            raise NotEnoughDatanodes(f"{len(result.stored)} datanodes took the write, it needs {required}")
        if result.failures:
            self.on_short()
        return BlockRef(result.block, result.size, result.crc32c, result.stored)

    def _note(self, node: NodeId, error: DfsError) -> None:
        if isinstance(error, (NoSpace, InputOutput)):  # its disk fails: avoided until it says otherwise
            self._registry.refused_for_space(node)
        elif isinstance(error, Unavailable) and (datanode := self._registry.get(node)):
            self._registry.lost(node, datanode.beat)


class OpenBlock:
    """A block under way; ends with `finish` or `abort`."""

    def __init__(self, writer: BlockWriter, fan: FanOut, nodes: Sequence[NodeId], copies: int) -> None:
        self.block = fan.block
        self.nodes = nodes
        self._writer = writer
        self._fan = fan
        self._copies = copies

    @property
    def size(self) -> int:
        return self._fan.size

    async def send(self, chunk: bytes) -> None:
        """Raises NotEnoughDatanodes or NoSpace once no datanode is left."""
        try:
            await self._fan.send(chunk)
        except Unavailable:
            await self.finish()
            raise

    async def finish(self) -> BlockRef:
        """Raises NotEnoughDatanodes or NoSpace; the block stays held either way."""
        return self._writer.accept(await self._fan.finish(), self._copies)

    async def abort(self) -> None:
        await asyncio.shield(self._fan.abort())

    def release(self, *, used: bool) -> None:
        self._writer.release(self.block, self.nodes, used=used)
