"""The states of datanodes over time; the clock is a number."""

from __future__ import annotations

import pytest

from dfslib.errors import UnknownNode
from dfslib.model import NodeId
from dfslib.namenode.membership.registry import Datanode, NodeState, Registry
from dfslib.namenode.namespace.records import NodeRecord
from dfslib.wire.messages import HeartbeatRequest, JoinRequest

SUSPECT_S, DEAD_S = 5.0, 60.0
NODE = NodeId("a")


def joined(registry: Registry, now_s: float) -> Datanode:
    node = registry.join(JoinRequest(NODE, "", 1, 8181, "", "", 100, 10, 90, 1), "http://h:1", now_s, 0)
    assert registry.state(node, now_s) is NodeState.SUSPECT
    node.reported = True
    return node


def beat(registry: Registry, now_s: float, *, free: int = 90, leaving: bool = False) -> Datanode:
    return registry.heartbeat(HeartbeatRequest(NODE, 100, 10, free, 1, leaving), now_s, 0)


def test_silence() -> None:
    registry = Registry(SUSPECT_S, DEAD_S)
    node = joined(registry, 100.0)
    for now_s, state in ((100.0, "alive"), (104.9, "alive"), (105.0, "suspect"), (160.0, "dead")):
        assert registry.state(node, now_s) == state
    beat(registry, 161.0)
    assert registry.state(node, 161.0) is NodeState.ALIVE


def test_a_lost_connection_is_noticed_at_once_unless_it_was_heard_since() -> None:
    registry = Registry(SUSPECT_S, DEAD_S)
    node = joined(registry, 0.0)
    beat(registry, 1.0)
    count = node.beat
    beat(registry, 2.0)
    assert not registry.lost(NODE, count)
    assert registry.state(node, 2.0) is NodeState.ALIVE
    assert registry.lost(NODE, node.beat)
    assert registry.state(node, 2.0) is NodeState.SUSPECT
    assert registry.state(node, 2.0 + DEAD_S - 0.1) is NodeState.SUSPECT
    assert registry.state(node, 2.0 + DEAD_S) is NodeState.DEAD
    beat(registry, 63.0)
    assert registry.state(node, 63.0) is NodeState.ALIVE


def test_a_restart_of_the_namenode_gives_datanodes_time() -> None:
    registry = Registry(SUSPECT_S, DEAD_S)
    registry.restore([NodeRecord(NODE, "http://h:1", "http://h:1", 100, 10, 1, 0, True)], 1000.0)
    node = registry.get(NODE)
    assert node is not None
    assert registry.state(node, 1000.0) is NodeState.SUSPECT
    assert registry.state(node, 1000.0 + DEAD_S) is NodeState.DEAD
    with pytest.raises(UnknownNode):
        beat(registry, 1001.0)
    assert joined(registry, 1002.0).drained


def test_leaving_draining_and_full() -> None:
    registry = Registry(SUSPECT_S, DEAD_S)
    node = joined(registry, 0.0)
    assert registry.is_writable(node, 0.0)
    registry.refused_for_space(NODE)
    assert not registry.is_writable(node, 0.0)
    beat(registry, 1.0)
    assert registry.is_writable(node, 1.0)
    beat(registry, 2.0, free=0)
    assert not registry.is_writable(node, 2.0)
    registry.drain(NODE, True)
    assert registry.state(node, 2.0) is NodeState.DRAINING
    assert registry.readable(2.0) == [node]
    assert registry.alive(2.0) == []
    registry.drain(NODE, False)
    beat(registry, 3.0, leaving=True)
    assert registry.state(node, 3.0) is NodeState.DRAINING
    assert registry.readable(3.0) == []


def test_slowness_is_remembered_for_longer_each_time() -> None:
    registry = Registry(SUSPECT_S, DEAD_S)
    node = joined(registry, 0.0)
    registry.slowed(NODE, 0.0)
    assert registry.is_slow(node, 9.9)
    assert not registry.is_slow(node, 10.0)
    registry.slowed(NODE, 11.0)
    assert registry.is_slow(node, 30.9)
    registry.slowed(NODE, 1000.0)
    assert not registry.is_slow(node, 1010.0)


def test_a_datanode_that_a_write_was_given_up_for_reports_again_once_it_is_well() -> None:
    registry = Registry(SUSPECT_S, DEAD_S)
    node = joined(registry, 0.0)
    registry.report(node, 0.0, first=True, last=True)
    assert not registry.wants_report(node, 100.0)
    registry.gave_up(NODE)
    beat(registry, 100.0)  # after a silence: no sign yet that it has done what it was sent
    assert not registry.wants_report(node, 100.0)
    for second in range(101, 105):
        beat(registry, float(second))
        node.heard_s = second + 0.9  # it was held until then
    assert registry.wants_report(node, 104.0)
    assert not registry.wants_report(node, 104.0)
    registry.report(node, 105.0, first=True, last=False)
    registry.report(node, 107.0, first=False, last=True)
    registry.gave_up(NODE)
    for second in range(108, 145):
        beat(registry, float(second))
    assert not registry.wants_report(node, 144.0)  # it took two seconds, so the next one waits for forty
    assert registry.wants_report(node, 145.0)


def test_a_heartbeat_before_the_report_is_refused() -> None:
    registry = Registry(SUSPECT_S, DEAD_S)
    joined(registry, 0.0).reported = False
    with pytest.raises(UnknownNode):
        beat(registry, 1.0)
