"""Who is written down as dead, by whom, and how that is taken back; the clock is a number."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from dfslib.model import NodeId
from dfslib.namenode.membership.deaths import Deaths, newly_dead
from dfslib.namenode.membership.registry import NodeState, Registry
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import records
from dfslib.wire.messages import HeartbeatRequest, JoinRequest

ALIVE, SUSPECT, DRAINING, DEAD = NodeState.ALIVE, NodeState.SUSPECT, NodeState.DRAINING, NodeState.DEAD


def names(*states: NodeState) -> list[NodeId]:
    return newly_dead({NodeId(str(number)): state for number, state in enumerate(states)})


def test_half_have_to_be_there_to_call_the_others_dead() -> None:
    assert names(ALIVE, DEAD) == [NodeId("1")]
    assert names(ALIVE, DEAD, DEAD) == []
    assert names(ALIVE, DRAINING, DEAD, DEAD) == [NodeId("2"), NodeId("3")]
    assert names(ALIVE, SUSPECT, DEAD, DEAD) == []
    assert names(DEAD) == names(DEAD, DEAD) == []
    assert names(ALIVE, ALIVE, SUSPECT) == []


class Watched:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.engine = MemoryEngine()
        self.registry = Registry(5, 60)
        self.deaths = Deaths(self.engine, self.registry, lambda: self.now_s)

    def join(self, name: str) -> None:
        request = JoinRequest(name, "c", 1, 1, "", "", 1, 0, 1, 0)
        node = self.registry.join(request, f"http://{name}", self.now_s, 0)
        node.reported = True
        asyncio.run(self.engine.transact(lambda txn: records.put_node(txn, node.record())))

    def beat(self, *names: str) -> None:
        for name in names:
            self.registry.heartbeat(HeartbeatRequest(name, 1, 0, 1, 0), self.now_s, 0)

    def pass_s(self, seconds: int, *beating: str) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self.beat(*beating)
            asyncio.run(self.deaths.run_once())

    @property
    def dead(self) -> set[str]:
        return {record.node_id for record in self.engine.read(lambda txn: list(records.scan_nodes(txn))) if record.dead}


@contextmanager
def watched(*names: str) -> Iterator[Watched]:
    made = Watched()
    for name in names:
        made.join(name)
    yield made
    made.engine.close()


def test_the_dead_are_written_down_after_their_time_and_one_after_the_other() -> None:
    with watched("a", "b", "c") as made:
        made.pass_s(59, "a", "b")
        assert made.dead == set()
        made.pass_s(2, "a", "b")
        assert made.dead == {"c"}
        made.pass_s(61, "a")
        assert made.dead == {"b", "c"}
        made.pass_s(200)
        assert made.dead == {"b", "c"}  # nobody is left to be in touch with


def test_one_that_has_lost_most_calls_nobody_dead() -> None:
    with watched("a", "b", "c") as made:
        made.pass_s(200, "a")
        assert made.dead == set()


def test_who_comes_back_is_not_dead_with_and_without_joining() -> None:
    with watched("a", "b", "c") as made:
        made.pass_s(61, "a", "b")
        assert made.dead == {"c"}
        made.pass_s(1, "a", "b", "c")  # its network was cut
        assert made.dead == set()
        made.pass_s(61, "a", "b")
        assert made.dead == {"c"}
        number = made.engine.history.head.number
        made.pass_s(5, "a", "b")
        assert made.engine.history.head.number == number
        made.join("c")
        assert made.dead == set()


def test_who_is_drained_does_not_count_and_who_is_forgotten_stays_so() -> None:
    with watched("a", "b", "c") as made:
        for name in ("b", "c"):
            made.registry.drain(NodeId(name), True)
        made.pass_s(200, "a")
        assert made.dead == set()
        made.registry.drain(NodeId("b"), False)
        asyncio.run(made.engine.transact(lambda txn: records.delete_node(txn, NodeId("b"))))
        made.pass_s(1, "a")
        assert made.engine.read(lambda txn: [record.node_id for record in records.scan_nodes(txn)]) == ["a", "c"]
