"""Plans of repair, against what they promise, for random clusters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfslib.model import REPLICATION_ALL, BlockId, NodeId
from dfslib.namenode.repair.planner import BlockState, Member, make_plan

SIZE = 1000


def member(name: str, *, host: str = "", free: int = 10**9, state: str = "alive") -> Member:
    """`state`: alive, full, suspect or drained."""
    return Member(
        NodeId(name),
        host or name,
        free,
        readable=state != "suspect",
        writable=state == "alive",
        counts=state != "drained",
    )


def members(*made: Member) -> dict[NodeId, Member]:
    return {one.node: one for one in made}


def block(number: int, holders: str, wanted: int) -> BlockState:
    return BlockState(BlockId(number), SIZE, [NodeId(name) for name in holders], wanted)


def test_a_block_with_enough_copies_needs_nothing() -> None:
    plan = make_plan([block(1, "ab", 2)], members(member("a"), member("b"), member("c")))
    assert (plan.copies, plan.drops, plan.short, plan.lost) == ([], [], 0, [])


def test_a_missing_copy_goes_to_a_host_without_one() -> None:
    there = members(member("a", host="x"), member("b", host="x"), member("c", host="y"))
    plan = make_plan([block(1, "a", 2)], there)
    assert [(copy.target, copy.sources) for copy in plan.copies] == [("c", ("a",))]


def test_the_fewest_copies_come_first() -> None:
    there = members(*(member(name) for name in "abcd"))
    plan = make_plan([block(1, "abc", 4), block(2, "a", 2), block(3, "ab", 3)], there)
    assert [copy.block for copy in plan.copies] == [2, 3, 1]


def test_suspect_copies_count_and_dead_ones_do_not() -> None:
    there = members(member("a"), member("b", state="suspect"), member("c"))
    assert make_plan([block(1, "ab", 2)], there).copies == []
    assert [copy.target for copy in make_plan([block(1, "aX", 2)], there).copies] == ["c"]


def test_a_drained_datanode_is_copied_from() -> None:
    there = members(member("a", state="drained"), member("b"))
    plan = make_plan([block(1, "a", 1)], there)
    assert [(copy.target, copy.sources) for copy in plan.copies] == [("b", ("a",))]
    assert plan.held_back == {"a": 1}
    assert make_plan([block(1, "ab", 1)], there).held_back == {}


def test_lost_is_what_nobody_has() -> None:
    there = members(member("a"), member("b", state="suspect"))
    plan = make_plan([block(1, "", 1), block(2, "X", 1), block(3, "b", 2)], there)
    assert plan.lost == [1, 2]


def test_nothing_goes_where_there_is_no_room() -> None:
    plan = make_plan([block(1, "a", 2)], members(member("a"), member("b", free=SIZE), member("c", state="full")))
    assert plan.copies == []
    assert plan.short == 1


def test_all_means_every_datanode_that_can_take_it() -> None:
    there = members(member("a"), member("b"), member("c", state="suspect"), member("d", state="drained"))
    plan = make_plan([block(1, "a", REPLICATION_ALL)], there)
    assert [copy.target for copy in plan.copies] == ["b"]


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abcdef"), max_size=6), st.integers(1, 4)), max_size=20),
    st.lists(st.sampled_from(["alive", "full", "suspect", "drained", "dead"]), min_size=6, max_size=6),
    st.lists(st.sampled_from(["x", "y", "z"]), min_size=6, max_size=6),
)
def test_every_plan(blocks: list[tuple[set[str], int]], states: list[str], hosts: list[str]) -> None:
    there = members(
        *(
            member(name, state=state, host=host)
            for name, state, host in zip("abcdef", states, hosts, strict=True)
            if state != "dead"
        )
    )
    known = [block(number, "".join(sorted(holders)), wanted) for number, (holders, wanted) in enumerate(blocks)]
    plan = make_plan(known, there)
    for state in known:
        counted = {node for node in state.holders if node in there and there[node].counts}
        readable = {node for node in state.holders if node in there and there[node].readable}
        targets = [copy.target for copy in plan.copies if copy.block == state.block]
        dropped = [drop.node for drop in plan.drops if drop.block == state.block]
        assert len(set(targets)) == len(targets)
        assert all(there[target].writable and target not in state.holders for target in targets)
        assert len(targets) <= max(0, state.wanted - len(counted))
        assert not (targets and dropped)
        assert set(dropped) <= counted
        if dropped:  # as many as wanted stay where they can be read
            assert len((counted & readable) - set(dropped)) >= state.wanted
        if targets:
            assert readable
    assert plan.copies == sorted(plan.copies)
