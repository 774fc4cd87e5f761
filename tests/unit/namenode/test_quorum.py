"""What a store that has metadata decides about the datanodes that it hears."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.model import NodeId
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.quorum import Heard, Known, Outdated, Quorum, Serve, Undecided
from dfslib.namenode.metadata.history import Place


def known(count: int) -> list[Known]:
    return [Known(NodeId(f"n{number}"), f"http://n{number}") for number in range(count)]


def joiner(number: int | str) -> Joiner:
    return Joiner(NodeId(f"n{number}"), f"http://n{number}", "c1", 0)


def heard(quorum: Quorum, number: int | str, place: Place) -> None:
    quorum.hear(joiner(number), Heard(place, f"n{number} is {place.name}"))


@pytest.mark.parametrize(("count", "needed"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (7, 4)])
def test_half_of_the_datanodes_have_to_agree(count: int, needed: int) -> None:
    quorum = Quorum(known(count))
    for number in range(needed):
        assert isinstance(quorum.decide(), Undecided)
        heard(quorum, number, Place.PAST)
    assert isinstance(quorum.decide(), Serve)


def test_one_that_comes_again_or_is_not_known_does_not_count() -> None:
    quorum = Quorum(known(3))
    for number in (0, 0, "x", "y"):
        heard(quorum, number, Place.PAST)
    decision = quorum.decide()
    assert isinstance(decision, Undecided)
    assert "2 of its 3 datanodes" in decision.detail
    assert "(1 so far)" in decision.detail
    assert "start n1 at http://n1, n2 at http://n2" in decision.detail
    assert "dfs namenode open --force" in decision.detail
    heard(quorum, 2, Place.PAST)
    assert isinstance(quorum.decide(), Serve)


def test_where_the_silent_are_dead_those_that_have_come_decide() -> None:
    quorum = Quorum(known(5))
    assert isinstance(quorum.decide(silent_are_dead=True), Undecided)
    heard(quorum, 0, Place.APART)
    heard(quorum, "not known", Place.PAST)
    assert isinstance(quorum.decide(silent_are_dead=True), Outdated)
    heard(quorum, 1, Place.PAST)
    assert isinstance(quorum.decide(), Undecided)
    assert isinstance(quorum.decide(silent_are_dead=True), Serve)


@pytest.mark.parametrize("number", [0, "not known"])
def test_one_that_has_gone_on_from_the_stores_end_is_enough(number: int | str) -> None:
    quorum = Quorum(known(5))
    heard(quorum, 1, Place.PAST)
    heard(quorum, number, Place.LATER)
    assert quorum.decide() == Outdated(f"n{number} is LATER")


def test_where_they_have_parted_most_datanodes_decide() -> None:
    quorum = Quorum(known(4))
    heard(quorum, 0, Place.APART)
    heard(quorum, 1, Place.APART)
    heard(quorum, "not known", Place.APART)
    decision = quorum.decide()
    assert isinstance(decision, Undecided)
    assert "n1 is APART" in decision.detail
    heard(quorum, 2, Place.APART)
    assert isinstance(quorum.decide(), Outdated)


def test_where_half_have_parted_and_half_agree_it_is_served_and_they_are_refused() -> None:
    quorum = Quorum(known(2))
    heard(quorum, 0, Place.APART)
    assert isinstance(quorum.decide(), Undecided)
    heard(quorum, 1, Place.PAST)
    assert isinstance(quorum.decide(), Serve)


@given(st.integers(1, 7), st.lists(st.tuples(st.integers(0, 9), st.sampled_from(Place)), max_size=14))
def test_it_is_served_only_with_half_and_given_up_only_where_nothing_is_lost_or_most_say_so(
    count: int, words: list[tuple[int, Place]]
) -> None:
    quorum = Quorum(known(count))
    places: dict[int, Place] = {}
    for number, place in words:
        places[number] = place
        heard(quorum, number, place)
    counted = [place for number, place in places.items() if number < count]
    decision = quorum.decide()
    if Place.LATER in places.values():
        assert isinstance(decision, Outdated)
    elif 2 * counted.count(Place.PAST) >= count:
        assert isinstance(decision, Serve)
    else:
        assert isinstance(decision, Outdated) == (2 * counted.count(Place.APART) > count)
