"""The chain that leads furthest, against trying every way; and what an empty namenode decides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfslib.model import NodeId
from dfslib.namenode.checkpoint.chains import best_chain
from dfslib.namenode.checkpoint.format import FileName
from dfslib.namenode.checkpoint.opening import QUIET_S, Decision, Joiner, NewCluster, Opening, Restore, Wait

NUMBER = st.integers(1, 12)
CHECKPOINTS = st.builds(lambda epoch, last: FileName("checkpoint", epoch, 0, last), st.integers(0, 1), NUMBER)
JOURNALS = st.builds(
    lambda epoch, a, b: FileName("journal", epoch, min(a, b), max(a, b)), st.integers(0, 1), NUMBER, NUMBER
)


def reaches(names: set[FileName]) -> set[tuple[int, int]]:
    """Every commit up to which some checkpoint and journals without a gap lead."""
    found = {(name.epoch, name.last) for name in names if name.is_checkpoint}
    while True:
        more = {
            (name.epoch, name.last)
            for name in names
            for epoch, last in found
            if not name.is_checkpoint and name.epoch == epoch and name.first <= last + 1 and name.last > last
        }
        if more <= found:
            return found
        found |= more


@given(st.sets(st.one_of(CHECKPOINTS, JOURNALS), max_size=10))
def test_the_best_chain_reaches_as_far_as_any(names: set[FileName]) -> None:
    chain = best_chain(names)
    assert (chain.reach if chain else None) == max(reaches(names), default=None)
    if chain is None:
        return
    assert set(chain.files) <= names
    reached = chain.checkpoint.last
    for journal in chain.journals:
        assert journal.epoch == chain.checkpoint.epoch
        assert journal.first <= reached + 1
        assert journal.last > reached
        reached = journal.last


def joiner(name: str, cluster: str = "", epoch: int = 0) -> Joiner:
    return Joiner(NodeId(name), f"http://{name}", cluster, epoch)


def decision(*joiners: Joiner, after_s: float = QUIET_S, new_cluster: bool = False) -> Decision:
    opening = Opening(new_cluster=new_cluster)
    for one in joiners:
        opening.joined(one, 10.0)
    return opening.decide(10.0 + after_s)


def test_new_datanodes_alone_make_a_new_cluster_once_nobody_else_comes() -> None:
    assert isinstance(decision(), Wait)
    assert isinstance(decision(joiner("a"), joiner("b"), after_s=QUIET_S - 0.1), Wait)
    assert isinstance(decision(joiner("a"), joiner("b")), NewCluster)


def test_a_member_of_a_cluster_among_new_ones_has_it_restored() -> None:
    member = joiner("b", "c1")
    assert decision(joiner("a"), member) == Restore([member])


def test_members_of_two_clusters_are_a_case_for_a_person() -> None:
    wait = decision(joiner("a", "c1"), joiner("b", "c2"))
    assert isinstance(wait, Wait)
    assert "c1, c2" in wait.detail


def test_who_comes_late_is_waited_for_and_who_comes_again_is_not() -> None:
    opening = Opening(new_cluster=False)
    opening.joined(joiner("a", "c1"), 0.0)
    opening.joined(joiner("a", "c1"), 3.0)
    assert isinstance(opening.decide(QUIET_S), Restore)
    opening.joined(joiner("b", "c1"), 4.5)
    assert isinstance(opening.decide(QUIET_S + 1), Wait)
    assert opening.decide(4.5 + QUIET_S) == Restore([joiner("a", "c1"), joiner("b", "c1")])


def test_an_operator_who_wants_a_new_cluster_gets_it() -> None:
    assert isinstance(decision(new_cluster=True), NewCluster)
