"""What an empty namenode decides about the datanodes that come; the clock is a number."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from dfslib.model import NodeId
from dfslib.namenode.checkpoint.branches import Branch
from dfslib.namenode.checkpoint.format import Header
from dfslib.namenode.checkpoint.opening import (
    GATHER_S,
    NEW_S,
    SETTLE_S,
    Decision,
    Joiner,
    NewCluster,
    Opening,
    Restore,
    Survey,
    Wait,
)
from dfslib.wire.features import NEWEST_LEVEL


def joiner(name: str, cluster: str = "", epoch: int = 0) -> Joiner:
    return Joiner(NodeId(name), f"http://{name}", cluster, epoch)


A, B, C, NEW = joiner("a", "c1"), joiner("b", "c1"), joiner("c", "c1"), joiner("new")


def branch(holders: Collection[NodeId], *named: Joiner, last: int = 7) -> Branch:
    header = Header("checkpoint", "c1", 0, 0, last, 0, nodes=tuple(one.node for one in named))
    return Branch(header, frozenset(holders), frozenset(holders))


class Driven:
    """An opening whose surveys find `named` on whoever is asked."""

    def __init__(
        self, *named: Joiner, new_cluster: bool = False, only: str | None = None, found: Sequence[Branch] | None = None
    ) -> None:
        self.opening = Opening(new_cluster=new_cluster, only=only)
        everybody = frozenset(one.node for one in (A, B, C, NEW))
        self.found = found if found is not None else [branch(everybody, *named)] if named else []

    def join(self, now_s: float, *joiners: Joiner) -> None:
        for one in joiners:
            self.opening.joined(one, now_s)

    def decide(self, now_s: float) -> Decision:
        decision = self.opening.decide(now_s)
        if isinstance(decision, Survey):
            self.opening.surveyed(decision.sources, self.found)
            decision = self.opening.decide(now_s)
            assert not isinstance(decision, Survey)
        return decision


def test_new_datanodes_alone_make_a_new_cluster_once_nobody_else_comes() -> None:
    driven = Driven()
    assert isinstance(driven.decide(100.0), Wait)
    driven.join(99.0, joiner("x"))
    assert driven.decide(99.0) == Wait("1 new datanode came, others may be on their way")
    driven.join(100.0, joiner("y"))
    assert driven.decide(100.0 + NEW_S - 0.1) == Wait("2 new datanodes came, others may be on their way")
    assert isinstance(driven.decide(100.0 + NEW_S), NewCluster)


def test_an_old_one_among_new_ones_has_its_cluster_restored() -> None:
    driven = Driven(A)
    driven.join(0.0, NEW)
    driven.join(NEW_S - 0.1, A)
    assert driven.decide(NEW_S - 0.1 + SETTLE_S) == Restore([A])


def test_when_all_that_the_newest_copy_names_are_there_it_waits_for_those_that_it_cannot_name() -> None:
    driven = Driven(A, B)
    driven.join(0.0, A)
    assert isinstance(driven.decide(0.0), Wait)
    driven.join(1.0, B)
    assert isinstance(driven.decide(1.0), Wait)
    assert isinstance(driven.decide(0.9 + SETTLE_S), Wait)
    assert driven.decide(1.0 + SETTLE_S) == Restore([A, B])


def test_those_that_are_named_and_away_are_waited_for_a_while() -> None:
    """They may have a newer copy: one that was long away may be the first to come."""
    driven = Driven(A, B, C)
    driven.join(0.0, A)
    driven.join(4.0, B)
    wait = driven.decide(GATHER_S)
    assert isinstance(wait, Wait)
    assert "1 that the newest copy names" in wait.detail
    driven.join(5.0, A)  # it tries again all the time
    assert driven.decide(4.0 + GATHER_S) == Restore([A, B])


def test_most_of_those_that_the_newest_copy_names_have_to_come() -> None:
    """Else two namenodes could restore it from different ones, each with what the other lacks."""
    driven = Driven(A, B, C)
    driven.join(0.0, A, NEW)
    wait = driven.decide(1000.0)
    assert isinstance(wait, Wait)
    assert "names 3 datanodes" in wait.detail
    assert "start b, c" in wait.detail
    driven.join(1000.0, C)
    assert isinstance(driven.decide(1000.0), Wait)
    assert driven.decide(1000.0 + GATHER_S) == Restore([A, C])


def test_half_of_them_are_not_most() -> None:
    driven = Driven(A, B)
    driven.join(0.0, A)
    assert isinstance(driven.decide(1000.0), Wait)
    driven.join(1000.0, B)
    assert driven.decide(1000.0 + SETTLE_S) == Restore([A, B])


def test_of_copies_that_have_parted_the_one_that_most_have_is_restored() -> None:
    found = [branch({A.node, B.node}, A, B, C, last=5), branch({C.node}, A, B, C, last=9)]
    driven = Driven(found=found)
    driven.join(0.0, A, B, C)
    assert driven.decide(1000.0) == Restore([A, B])


def test_where_none_has_most_a_person_chooses() -> None:
    driven = Driven(found=[branch({A.node}, A, B, last=5), branch({B.node}, A, B, last=9)])
    driven.join(0.0, A, B)
    wait = driven.decide(1000.0)
    assert isinstance(wait, Wait)
    for words in ("commit 5 of epoch 0 on a", "commit 9 of epoch 0 on b", "dfs restore --from URL"):
        assert words in wait.detail


def test_what_is_waited_for_without_any_datanode_is_said() -> None:
    wait = Driven().decide(0.0)
    assert isinstance(wait, Wait)
    for words in ("start them", "dfs restore", "DFS_NEW_CLUSTER=true", "--new-cluster"):
        assert words in wait.detail


def test_without_a_copy_others_are_waited_for_before_the_restore_fails() -> None:
    driven = Driven()
    driven.join(0.0, A)
    assert isinstance(driven.decide(GATHER_S - 0.1), Wait)
    assert driven.decide(GATHER_S) == Restore([A])


def test_who_comes_after_the_survey_is_asked_too() -> None:
    opening = Opening(new_cluster=False)
    opening.joined(A, 0.0)
    assert opening.decide(0.0) == Survey([A])
    opening.joined(B, 0.1)
    opening.surveyed([A], [branch({A.node}, A)])
    assert opening.decide(0.2) == Survey([A, B])


def test_members_of_two_clusters_are_a_case_for_a_person() -> None:
    driven = Driven(A)
    driven.join(0.0, A, joiner("z", "c2"))
    wait = driven.decide(1000.0)
    assert isinstance(wait, Wait)
    assert "c1, c2" in wait.detail


def test_an_operator_who_wants_a_new_cluster_gets_it() -> None:
    assert isinstance(Driven(new_cluster=True).decide(0.0), NewCluster)


@pytest.mark.parametrize("new_cluster", [False, True])
def test_a_store_that_was_being_filled_becomes_nothing_else(new_cluster: bool) -> None:
    driven = Driven(A, only="c1", new_cluster=new_cluster)
    driven.join(0.0, NEW, joiner("z", "c2"))
    wait = driven.decide(1000.0)
    assert isinstance(wait, Wait)
    assert "cluster c1 was begun" in wait.detail
    driven.join(1001.0, A)
    assert driven.decide(1001.0 + SETTLE_S) == Restore([A])


def test_a_cluster_of_a_later_level_is_left_alone_and_what_to_do_is_said() -> None:
    later = A._replace(level=NEWEST_LEVEL + 1)
    driven = Driven(later)
    driven.join(0.0, later, B)
    for now_s in (0.0, GATHER_S, 1000.0):
        decision = driven.opening.decide(now_s)
        assert isinstance(decision, Wait)
        assert "start the version" in decision.detail
