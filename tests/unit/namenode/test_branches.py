"""To how many pasts the newest copies of datanodes lead: of stores that were copied and went on, against the truth."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dfslib.model import NodeId
from dfslib.namenode.checkpoint.branches import branches, is_past, joins
from dfslib.namenode.checkpoint.format import Header
from tests.unit.namenode.test_history import Store


def copy_of(store: Store, epoch: int = 0) -> Header:
    history = store.history
    return Header(
        "checkpoint", "c", epoch, 0, history.head.number, 0, nodes=("a", "b"), head=history.head, runs=history.runs
    )


STEPS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 3)), min_size=1, max_size=10)
"""Which store goes on, whether a copy is made before, and by how many commits."""


@given(STEPS, st.lists(st.integers(0, 9), min_size=1, max_size=6))
@settings(max_examples=300)
def test_branches_are_the_ends_that_are_in_nobodys_past(
    steps: list[tuple[int, bool, int]], brought: list[int]
) -> None:
    stores = [Store()]
    seen: list[Store] = []
    """As they were after each step: what datanodes may have been brought."""
    for number, (which, copied, commits) in enumerate(steps):
        store = stores[which % len(stores)]
        if copied:
            stores.append(store.copy())
        store.go_on(b"run%d" % number, commits)
        seen.append(store.copy())
    had = {NodeId(str(node)): seen[which % len(seen)] for node, which in enumerate(brought)}
    found = branches({node: copy_of(store) for node, store in had.items()})

    def leads_on_to(one: Store, other: Store) -> bool:
        return one.commits == other.commits[: len(one.commits)]

    ends = [store for store in had.values() if not any(
        leads_on_to(store, other) and not leads_on_to(other, store) for other in had.values()
    )]  # fmt: skip
    assert {branch.newest.head for branch in found} == {store.history.head for store in ends}
    for branch in found:
        end = next(store for store in ends if store.history.head == branch.newest.head)
        assert branch.holders == {node for node, store in had.items() if leads_on_to(store, end)}
        others = [other for other in ends if other.history.head != end.history.head]
        assert branch.alone == {
            node for node in branch.holders if not any(leads_on_to(had[node], other) for other in others)
        }
        assert branch.named == {"a", "b"}


def test_what_is_of_an_earlier_epoch_is_past_whatever_its_numbers() -> None:
    old, new = Store(), Store()
    old.go_on(b"run0", 9)
    new.go_on(b"run1", 2)
    found = branches({NodeId("a"): copy_of(old, 1), NodeId("b"): copy_of(new, 2)})
    assert [branch.newest.epoch for branch in found] == [2]
    assert found[0].holders == {"a", "b"}


def test_files_without_lineage_go_by_numbers() -> None:
    store = Store()
    store.go_on(b"run0", 5)
    header = copy_of(store)
    for last, past in ((4, True), (5, True), (6, False)):
        assert is_past(replace(header, last=last, head=None, runs=()), header) is past
        assert is_past(header, replace(header, last=last, head=None, runs=())) is (last >= 5)


def test_a_journal_joins_to_the_commit_that_it_goes_on_from() -> None:
    store = Store()
    store.go_on(b"run0", 5)
    before, other = copy_of(store), store.copy()
    store.go_on(b"run0", 2)
    after = replace(copy_of(store), kind="journal", first=6, before=before.head.chain if before.head else b"")
    assert joins(before, after)
    assert joins(before, replace(after, first=4, before=b"earlier"))  # it overlaps
    assert not joins(before, replace(after, before=b"another one's"))
    other.go_on(b"run1", 2)
    assert not joins(copy_of(other), after)
    assert not joins(after, before)
    assert joins(replace(before, head=None, runs=()), after)
