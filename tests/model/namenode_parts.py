"""The namenode's parts around its metadata, put together as `namenode/node.py` does, over a memory engine and datanodes
that yield. Nothing is left to threads and clocks, so that a seed repeats a whole run."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random
from typing import Any

from crc32c import crc32c

from dfslib.errors import NotFound, Unavailable
from dfslib.model import BlockId, NodeId, format_block
from dfslib.namenode.blocks import compaction as compaction_module
from dfslib.namenode.blocks.compaction import Compaction
from dfslib.namenode.blocks.deferral import Deferral
from dfslib.namenode.blocks.garbage import GarbageCollector
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.moving import Mover
from dfslib.namenode.blocks.reconcile import Page, deletable, reconcile
from dfslib.namenode.blocks.unsynced import Unsynced
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.files.operations import Operations
from dfslib.namenode.files.pack import Packer
from dfslib.namenode.files.receive import Receiver
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.create import make_root
from dfslib.namenode.sessions.changing import Changing
from dfslib.namenode.sessions.table import Sessions
from dfslib.namenode.sessions.writing import Writing
from dfslib.runtime.clocks import Clocks
from dfslib.runtime.stamps import Stamps
from dfslib.runtime.tasks import Tasks
from dfslib.wire.messages import BlockBody, HeartbeatRequest, JoinRequest

COPIES = 3
_TURNS = 3
_LONG = 30
"""Turns until a message has arrived that a whole write may overtake."""


class FakeDatanode:
    """`delete` and `report` are what `datanode/registration.py` does, one after the other."""

    def __init__(self, name: str) -> None:
        self.id = NodeId(name)
        self.url = f"http://{name}/"
        self.blocks: dict[BlockId, bytes] = {}


class Parts:
    """`fails`: how likely a datanode does not answer a write that it has got, or has not."""

    def __init__(self, random: Random, fails: float = 0.0) -> None:
        self.random = random
        self.fails = fails
        self._time = itertools.count(1)
        self.nodes = {name: FakeDatanode(name) for name in ("n1", "n2", "n3")}
        self.registry = Registry(1e9, 1e9)
        for node in self.nodes.values():
            request = JoinRequest(node.id, "", 1, 80, node.url, "", 1 << 40, 0, 1 << 40, 0)
            self.registry.join(request, node.url, 0.0, 0).reported = True
        self.engine = MemoryEngine(random)
        self.orders, self.in_flight, self.tasks = Orders(), InFlight(self.monotonic), Tasks()
        clocks = Clocks(self.now_ns, self.monotonic, Stamps(self.now_ns, self.monotonic, 600))
        self.collector = GarbageCollector(self.engine, self.orders, self.in_flight, clocks, 0)
        new_id = map(BlockId, itertools.count(1)).__next__
        self.writer = BlockWriter(
            self.registry, self.in_flight, self.collector, self.tasks, new_id, self.monotonic,
            replication=COPIES, min_replicas=2, stall_timeout_s=60,
        )  # fmt: skip
        stand_in: Any = self
        self.writer._client = stand_in
        mover = Mover(self.engine, self.writer)
        self.deferral = Deferral(self.engine, self.writer, mover, new_id)
        self.compaction = Compaction(self.engine, self.writer, mover, self._urls)
        self.compaction.use(stand_in)
        packer = Packer(self.writer, self.tasks)
        self.receiver = Receiver(self.writer, packer)
        self.operations = Operations(self.engine, self.now_ns, clocks.stamps.now)
        stamp = clocks.stamps.now
        self.sessions = Sessions(self.engine, self.writer, self.registry, 1e9, self.monotonic, stamp)
        self.collector.is_open = self.sessions
        self.changing = Changing(self.engine, self.sessions.locks.check, self.now_ns, stamp)
        self.writing = Writing(
            self.engine, self.changing, self.sessions, self.writer, packer, self.deferral,
            Unsynced(self.engine, self.registry, self.in_flight, self.monotonic),
        )  # fmt: skip

    def now_ns(self) -> int:
        return next(self._time)

    def monotonic(self) -> float:
        return next(self._time) * 1e-6

    async def begin(self) -> None:
        await self.engine.transact(lambda txn: make_root(txn, 1))
        self.sessions.load()

    async def turns(self, most: int = _TURNS) -> None:
        """Others have theirs."""
        for _ in range(self.random.randrange(most)):
            await asyncio.sleep(0)

    # As transfer.block_client.BlockClient.

    async def put(self, url: str, block: BlockId, pieces: Sequence[bytes], headers: Mapping[str, str]) -> BlockBody:
        await self.turns()
        node, data = self._at(url), b"".join(pieces)
        fault = self.random.random() < self.fails
        if not fault or self.random.random() < 0.5:
            node.blocks[block] = data
        await self.turns()
        if fault:
            raise Unavailable(f"{url}: the connection ended")
        return BlockBody(format_block(block), len(data), f"{crc32c(data):08x}")

    # As transfer.block_source.read_block.

    async def read_block(
        self, _: object, urls: Sequence[str], block: BlockId, start: int, end: int
    ) -> AsyncIterator[bytes]:
        await self.turns()
        for url in urls:
            if (data := self._at(url).blocks.get(block)) is not None:
                assert end <= len(data)
                yield data[start:end]
                return
        raise NotFound(f"block {format_block(block)} is on no datanode")

    def _at(self, url: str) -> FakeDatanode:
        return next(node for node in self.nodes.values() if node.url == url)

    def _urls(self, nodes: Sequence[NodeId]) -> list[str]:
        return [node.url for node in self.nodes.values() if node.id in nodes]

    # As membership/app.py and datanode/registration.py: a datanode's messages, one after the other.

    async def beat(self, node: FakeDatanode) -> None:
        """A heartbeat, and what it is told to delete."""
        await self.turns()
        self.registry.heartbeat(HeartbeatRequest(node.id, 1 << 40, 0, 1 << 40, 0), 0.0, 0)
        ordered = (await self.orders.wait(node.id, 0)).delete
        delete = self.engine.read(lambda txn: deletable(txn, node.id, ordered))
        self._answered(node)
        await self.turns()
        self._delete(node, delete)

    async def report(self, node: FakeDatanode) -> None:
        """All that it has, in one page, and what nobody knows of."""
        known = self.registry.get(node.id)
        assert known is not None
        page = Page(0, sorted(node.blocks), True, known.answered_s)
        await self.turns(_LONG)
        unknown = await self.engine.transact(lambda txn: reconcile(txn, node.id, page, self.in_flight))
        self._answered(node)
        await self.turns()
        self._delete(node, [BlockId(block) for block in unknown])

    def _answered(self, node: FakeDatanode) -> None:
        known = self.registry.get(node.id)
        assert known is not None
        known.answered_s = self.monotonic()

    def _delete(self, node: FakeDatanode, blocks: Sequence[BlockId]) -> None:
        for block in blocks:
            record = self.engine.read(lambda txn, block=block: records.find_block(txn, block))  # type: ignore[misc]
            assert record is None or node.id not in record.nodes, f"block {block} is deleted, and counted on"
            assert block not in self.in_flight or block not in node.blocks, f"block {block} is deleted in flight"
            node.blocks.pop(block, None)


def use_parts(module_patch: Any, parts: Parts) -> None:
    """Compaction reads from these datanodes."""
    module_patch.setattr(compaction_module, "read_block", parts.read_block)
