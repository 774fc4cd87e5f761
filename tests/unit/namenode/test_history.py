"""Whether a commit is in a store's past, asked of stores that were copied, put back, and went on: against the truth."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from dfslib.namenode.metadata.engine import Writes
from dfslib.namenode.metadata.history import UNKNOWN_RUN, History, Lineage, Place, Run, place_of, place_of_history
from dfslib.namenode.metadata.lineage import HASH_BYTES, Recorder

EMPTY: Final = History(Lineage(UNKNOWN_RUN, 0, bytes(HASH_BYTES), bytes(HASH_BYTES), 0), ())


@dataclass
class Store:
    """A store and, beside it, the truth: every commit that led to it."""

    history: History = EMPTY
    commits: list[Lineage] = field(default_factory=list)

    def copy(self) -> Store:
        return Store(self.history, list(self.commits))

    def go_on(self, run: bytes, commits: int) -> None:
        """Opened, and written to."""
        recorder = Recorder(self.history, run, lambda: 0)
        for _ in range(commits):
            written: Writes = {b"k": run}  # what is written is the same in every store of that run
            step = recorder.step(self.history.head.number + 1, written, {b"k": None})
            recorder.adopted(step)
            self.history = step.history
            self.commits.append(step.history.head)


def place(commit: Lineage, store: Store) -> Place:
    return place_of(commit.run, commit.number, commit.chain, store.history)


def true_place(of: list[Lineage], towards: list[Lineage]) -> Place:
    """By comparing all commits."""
    if of == towards[: len(of)]:
        return Place.PAST
    return Place.LATER if towards == of[: len(towards)] else Place.APART


STEPS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 4)), min_size=1, max_size=12)
"""Which store is opened, whether a copy of it is made before, and how many commits it makes."""


def stores_of(steps: list[tuple[int, bool, int]]) -> list[Store]:
    stores = [Store()]
    for number, (which, copied, commits) in enumerate(steps):
        store = stores[which % len(stores)]
        if copied:
            stores.append(store.copy())
        store.go_on(b"run%d" % number, commits)
    return stores


@given(STEPS)
@settings(max_examples=500)
def test_a_commit_is_in_the_past_of_a_store_if_and_only_if_it_led_to_it(steps: list[tuple[int, bool, int]]) -> None:
    stores = stores_of(steps)
    for store in stores:
        for other in stores:
            for commit in other.commits:
                assert (place(commit, store) is Place.PAST) == (commit in store.commits)


@given(STEPS)
@settings(max_examples=500)
def test_of_two_stores_one_is_the_others_past_or_they_have_parted(steps: list[tuple[int, bool, int]]) -> None:
    stores = stores_of(steps)
    for store in stores:
        for other in stores:
            assert place_of_history(other.history, store.history) is true_place(other.commits, store.commits)


@given(STEPS, st.integers(1, 3))
def test_what_was_dropped_of_a_history_counts_as_its_past(steps: list[tuple[int, bool, int]], kept: int) -> None:
    stores = stores_of(steps)
    for store in stores:
        history = store.history._replace(runs=store.history.runs[-kept:])
        for commit in store.commits:
            assert place_of(commit.run, commit.number, commit.chain, history) is Place.PAST
        if len(store.history.runs) <= kept:
            continue
        for other in stores:
            found = place_of_history(other.history, history)
            if (truth := true_place(other.commits, store.commits)) is not Place.APART:
                assert found is truth


def test_a_copy_made_while_the_store_went_on_is_behind_it_without_a_word_of_its_history() -> None:
    store = Store()
    store.go_on(b"run0", 5)
    copy = store.copy()
    store.go_on(b"run0", 3)
    assert place(store.commits[-1], copy) is Place.LATER
    copy.go_on(b"run1", 5)
    assert place(store.commits[-1], copy) is Place.APART


def test_the_end_of_a_run_is_told_from_another_commit_of_that_run_and_number() -> None:
    """As of a virtual machine that was set back with its memory, and went on under the same run."""
    store = Store()
    store.go_on(b"run0", 5)
    end = store.commits[-1]
    other = Lineage(end.run, end.number, b"x" * HASH_BYTES, end.digest, 0)
    assert (place(end, store), place(other, store)) == (Place.PAST, Place.APART)
    store.go_on(b"run1", 1)
    assert (place(end, store), place(other, store)) == (Place.PAST, Place.APART)


def test_commits_of_a_release_without_lineage_are_nobodys_past() -> None:
    head = Lineage(UNKNOWN_RUN, 9, bytes(HASH_BYTES), bytes(HASH_BYTES), 0)
    history = History(head, (Run(b"run0", 1, b""), Run(UNKNOWN_RUN, 5, b"")))
    assert place_of(b"run0", 4, b"any", history) is Place.PAST
    assert place_of(b"run0", 5, b"any", history) is Place.APART
    assert place_of(UNKNOWN_RUN, 5, b"any", history) is Place.APART
    assert place_of(UNKNOWN_RUN, 9, head.chain, history) is Place.APART


def test_many_runs(seed: int = random.randrange(1 << 30)) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    store = Store()
    for number in range(300):
        store.go_on(b"run%d" % number, chance.randrange(3))
    assert all(place(commit, store) is Place.PAST for commit in store.commits)
