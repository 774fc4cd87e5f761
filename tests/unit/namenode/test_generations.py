"""Which copies of the metadata are kept, over months of changes, jumps of the clock and restarts."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dfslib.namenode.checkpoint.chains import best_chain
from dfslib.namenode.checkpoint.format import FileName
from dfslib.namenode.checkpoint.generations import AGES_NS, HOUR_NS, to_keep
from tests.unit.namenode.test_checkpoint_chains import CHECKPOINTS, JOURNALS

CHECKPOINTS_MAX = 2 + 2 * len(AGES_NS)
START_NS = 1_700_000_000 * 10**9


def checkpoint(last: int, epoch: int = 0) -> FileName:
    return FileName("checkpoint", epoch, 0, last)


TIMES = st.dictionaries(CHECKPOINTS, st.integers(0, 2 * START_NS))


@given(st.sets(st.one_of(CHECKPOINTS, JOURNALS), max_size=20), TIMES, st.integers(0, 2 * START_NS))
def test_what_may_be_kept_and_what_must(held: set[FileName], times_ns: dict[FileName, int], now_ns: int) -> None:
    chain = best_chain(held)
    if chain is None:
        return
    kept = to_keep(held, chain, times_ns, now_ns)
    assert kept <= held
    assert best_chain(kept) == chain
    without = held - {chain.checkpoint}
    assert best_chain(kept - {chain.checkpoint}) == best_chain(without)
    assert {name for name in held if name.is_checkpoint and name not in times_ns} <= kept
    known = [name for name in kept if name in times_ns]
    assert len(known) <= CHECKPOINTS_MAX


@given(st.sets(st.one_of(CHECKPOINTS, JOURNALS), max_size=20), TIMES, st.integers(0, 2 * START_NS))
def test_said_twice_it_keeps_the_same(held: set[FileName], times_ns: dict[FileName, int], now_ns: int) -> None:
    chain = best_chain(held)
    if chain is not None:
        kept = to_keep(held, chain, times_ns, now_ns)
        assert to_keep(kept, chain, times_ns, now_ns) == kept


GAPS = st.lists(
    st.one_of(st.integers(1, HOUR_NS), st.integers(1, 30 * HOUR_NS), st.integers(1, 400 * HOUR_NS)),
    min_size=1,
    max_size=150,
)


@given(GAPS, st.sets(st.integers(0, 150)))
@settings(deadline=None)
def test_there_is_one_of_each_age(gaps_ns: list[int], restarts: set[int]) -> None:
    """Between one and two of each time old, and as much longer as nothing was made: if any was as old at all. Whether
    the namenode has forgotten the times in between makes no difference."""
    held: set[FileName] = set()
    times_ns: dict[FileName, int] = {}
    now_ns = START_NS
    for number, gap_ns in enumerate(gaps_ns, 1):
        now_ns += gap_ns
        name = checkpoint(number)
        held.add(name)
        times_ns[name] = now_ns
        chain = best_chain(held)
        assert chain is not None
        held = to_keep(held, chain, {} if number in restarts else times_ns, now_ns)
        ages_ns = [now_ns - times_ns[name] for name in held]
        for age_ns in AGES_NS:
            if now_ns - START_NS - gaps_ns[0] >= age_ns:
                assert any(age_ns <= age <= 2 * age_ns + max(gaps_ns) for age in ages_ns)
    if len(gaps_ns) not in restarts:
        assert len(held) <= CHECKPOINTS_MAX


JUMPS = st.one_of(
    st.integers(-400 * HOUR_NS, 400 * HOUR_NS), st.integers(-100_000 * HOUR_NS, 100_000 * HOUR_NS), st.just(0)
)


@given(st.lists(st.tuples(st.integers(1, 30 * HOUR_NS), JUMPS)))
@example([(HOUR_NS, 100_000 * HOUR_NS)] * 30)
@settings(deadline=None)
def test_a_clock_that_jumps_costs_no_more_than_an_age(steps: list[tuple[int, int]]) -> None:
    """The newest chain and the one before stay, no more are kept than else, and when the clock has been right for long
    enough, all ages are there again."""
    held: set[FileName] = set()
    times_ns: dict[FileName, int] = {}
    now_ns = START_NS
    number = 0

    def make(wrong_ns: int) -> None:
        nonlocal held, number
        number += 1
        held.add(checkpoint(number))
        times_ns[checkpoint(number)] = max(0, now_ns + wrong_ns)
        chain = best_chain(held)
        assert chain is not None
        held = to_keep(held, chain, times_ns, max(0, now_ns + wrong_ns))
        assert checkpoint(number) in held
        assert number == 1 or checkpoint(number - 1) in held
        assert len(held) <= CHECKPOINTS_MAX

    for gap_ns, wrong_ns in steps:
        now_ns += gap_ns
        make(wrong_ns)
    gap_ns = 6 * HOUR_NS
    made_ns = {}
    for _ in range(4 * 21 + 4 * 60):
        now_ns += gap_ns
        make(0)
        made_ns[checkpoint(number)] = now_ns
    ages_ns = [now_ns - made_ns[name] for name in held if name in made_ns]
    for age_ns in AGES_NS:
        assert any(age_ns <= age <= 2 * age_ns + gap_ns for age in ages_ns)


def test_what_leads_further_is_somebody_elses() -> None:
    held = {checkpoint(5), checkpoint(9), checkpoint(2, epoch=1)}
    ours = best_chain({checkpoint(5)})
    assert ours is not None
    assert to_keep(held, ours, dict.fromkeys(held, 0), START_NS) >= {checkpoint(9), checkpoint(2, epoch=1)}
