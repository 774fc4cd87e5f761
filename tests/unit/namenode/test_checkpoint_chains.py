"""The chain that leads furthest, against trying every way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfslib.namenode.checkpoint.chains import best_chain
from dfslib.namenode.checkpoint.format import FileName

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
