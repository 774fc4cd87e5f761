"""Blocks on their way to datanodes: what is known of those that took them when somebody uses the block at last."""

from __future__ import annotations

import pytest

from dfslib.model import BlockId, NodeId
from dfslib.namenode.blocks.garbage import GarbageCollector
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.runtime.clocks import Clocks
from dfslib.runtime.stamps import Stamps
from dfslib.runtime.tasks import Tasks
from dfslib.wire.messages import JoinRequest

NODE = NodeId("a")


def join(registry: Registry, incarnation: str) -> None:
    request = JoinRequest(NODE, "", 1, 8181, "", "", 100, 10, 90, 1, incarnation=incarnation)
    registry.report(registry.join(request, "http://h:1", 0.0, 0), 0.0, first=True, last=True)


def is_doubted(registry: Registry) -> bool:
    node = registry.get(NODE)
    assert node is not None
    return node.unsure


@pytest.fixture
def registry() -> Registry:
    made = Registry(5.0, 60.0)
    join(made, "first")
    return made


@pytest.fixture
def writer(registry: Registry) -> BlockWriter:
    in_flight = InFlight()
    clocks = Clocks(lambda: 0, lambda: 0.0, Stamps(lambda: 0, lambda: 0.0, 1.0))
    collector = GarbageCollector(MemoryEngine(), Orders(), in_flight, clocks, 60.0, is_held=lambda: False)
    return BlockWriter(
        registry, in_flight, collector, Tasks(), iter(map(BlockId, range(1, 9))).__next__, lambda: 0.0,
        replication=-1, min_replicas=1, stall_timeout_s=1.0,
    )  # fmt: skip


def test_a_process_that_ended_before_its_block_was_used_is_followed_by_one_that_reports(
    registry: Registry, writer: BlockWriter
) -> None:
    block, _ = writer.grant(1)
    join(registry, "second")
    assert not is_doubted(registry)
    writer.release(block, [NODE], used=True)
    assert is_doubted(registry)


def test_the_process_that_took_the_block_is_believed(registry: Registry, writer: BlockWriter) -> None:
    block, _ = writer.grant(1)
    join(registry, "first")  # the namenode did not know it for a moment
    writer.release(block, [NODE], used=True)
    later, _ = writer.grant(1)
    writer.release(later, [NODE], used=True)
    assert not is_doubted(registry)
