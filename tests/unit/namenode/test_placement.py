"""Placement: the same answer each time, hosts apart, shares by free space, little movement."""

from __future__ import annotations

from collections import Counter

from dfslib.model import REPLICATION_ALL, BlockId, NodeId
from dfslib.namenode.blocks.placement import Candidate, place

GIB = 1 << 30


def nodes(*free: int, hosts: str = "") -> list[Candidate]:
    return [
        Candidate(NodeId(f"node{number}"), hosts[number] if hosts else f"host{number}", size * GIB)
        for number, size in enumerate(free)
    ]


def test_the_same_question_has_the_same_answer() -> None:
    candidates = nodes(5, 5, 5, 5)
    for number in range(50):
        block = BlockId(number)
        assert place(candidates, block, 2) == place(list(reversed(candidates)), block, 2)


def test_all_and_too_many() -> None:
    candidates = nodes(1, 2, 3)
    for copies in (REPLICATION_ALL, 3, 9):
        assert sorted(place(candidates, BlockId(7), copies)) == [node.node for node in candidates]


def test_hosts_are_kept_apart_while_there_are_enough() -> None:
    candidates = nodes(9, 9, 9, 1, hosts="xxxy")
    for number in range(100):
        chosen = place(candidates, BlockId(number), 2)
        assert "node3" in chosen
        assert len(place(candidates, BlockId(number), 3)) == 3


def test_shares_follow_free_space() -> None:
    counts = Counter(place(nodes(1, 1, 2), BlockId(number), 1)[0] for number in range(4000))
    assert 0.45 < counts[NodeId("node2")] / 4000 < 0.55


def test_a_datanode_that_leaves_moves_its_own_share_alone() -> None:
    candidates = nodes(1, 1, 1, 1)
    for number in range(500):
        before = place(candidates, BlockId(number), 1)
        after = place(candidates[:3], BlockId(number), 1)
        assert before == after or before == ["node3"]
