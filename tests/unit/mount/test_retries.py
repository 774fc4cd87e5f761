"""Who is answered ESTALE, once; and which inodes are suspect."""

from __future__ import annotations

import pytest

from dfslib.model import ROOT, Attr, FileType, InodeId
from dfslib.mount.filesystem import Caller, Handle
from dfslib.mount.names import Names
from dfslib.mount.retries import OPEN_S, Found, Retries

X, Y, D, E = InodeId(5), InodeId(6), InodeId(7), InodeId(8)
ONE, TWO, UNKNOWN = Caller(0, 0, 10), Caller(0, 0, 11), Caller(0, 0, 0)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def found(ino: InodeId, handle: int | None = None) -> Found:
    return Found(Attr(ino, FileType.FILE, 0o644), None if handle is None else Handle(handle))


@pytest.fixture
def released() -> list[Handle]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def retries(released: list[Handle], clock: Clock) -> Retries:
    return Retries(clock, released.append)


@pytest.mark.parametrize("caller", [ONE, UNKNOWN])
def test_whoever_was_refused_and_looked_it_up_is_taken_whatever_others_do(retries: Retries, caller: Caller) -> None:
    assert retries.refuse(caller, X, OPEN_S)
    assert retries.refuse(TWO, Y, OPEN_S)
    retries.found(caller, found(Y))
    assert not retries.refuse(caller, Y, OPEN_S)


def test_whoever_comes_without_a_lookup_is_refused_once_each(retries: Retries) -> None:
    assert retries.refuse(ONE, X, OPEN_S)
    assert retries.refuse(TWO, X, OPEN_S)
    assert not retries.refuse(ONE, X, OPEN_S)  # from an open descriptor there is no name on the way
    retries.done(ONE)
    assert retries.refuse(ONE, X, OPEN_S)


def test_a_lookup_of_callers_without_a_number_is_good_for_one(retries: Retries) -> None:
    assert retries.refuse(UNKNOWN, X, OPEN_S)
    assert retries.refuse(UNKNOWN, X, OPEN_S)
    for _ in range(2):
        retries.found(UNKNOWN, found(X))
    assert [retries.refuse(UNKNOWN, X, OPEN_S) for _ in range(3)] == [False, False, True]


def test_a_name_that_is_not_there_ends_it_but_for_who_makes_it(retries: Retries) -> None:
    assert retries.refuse(ONE, X, OPEN_S)
    retries.found(ONE, found(D))
    retries.not_found(ONE, E)
    assert not retries.is_expected(ONE)
    assert not retries.refuse(ONE, E, OPEN_S, making=True)
    assert not retries.refuse(ONE, D, OPEN_S, making=True)
    assert retries.refuse(ONE, D, OPEN_S)


def test_what_is_kept_open_is_given_up_once(retries: Retries, released: list[Handle], clock: Clock) -> None:
    retries.found(ONE, found(X, 1))  # nobody expects it
    assert retries.refuse(ONE, X, OPEN_S)
    retries.found(ONE, found(X, 2))
    retries.found(ONE, found(Y, 3))
    assert released == [1, 2]
    retries.done(ONE)
    assert released == [1, 2, 3]
    assert retries.refuse(TWO, X, OPEN_S)
    retries.found(TWO, found(X, 4))
    clock.now_s += OPEN_S
    retries.expire()
    retries.expire()
    assert released == [1, 2, 3, 4]


def test_what_a_changed_name_led_to_is_suspect_and_all_below(clock: Clock) -> None:
    names = Names(clock)
    names.learn(ROOT, b"d", D)
    names.learn(D, b"x", X)
    names.learn(ROOT, b"y", Y)
    led_to = names.changed(ROOT, b"d")
    assert led_to == D
    names.learn(ROOT, b"e", D)
    clock.now_s += 1000  # as long as the kernel has not dropped it
    assert [names.are_suspect(ino) for ino in (D, X, Y, ROOT)] == [True, True, False, False]
    names.dropped(led_to)
    assert names.are_suspect(X)
    clock.now_s += 1000
    assert not names.are_suspect(X)


def test_a_name_that_the_kernel_never_had_makes_nothing_suspect(clock: Clock) -> None:
    names = Names(clock)
    names.learn(ROOT, b"x", X)
    assert names.changed(ROOT, b"new") is None
    assert not names.are_suspect(X)


def test_of_names_that_were_too_many_the_forgotten_ones_are_reckoned_with(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfslib.mount.names._KEPT", 2)
    names = Names(clock)
    names.learn(ROOT, b"x", X)
    names.learn(ROOT, b"y", Y)
    names.learn(ROOT, b"d", D)
    names.changed(ROOT, b"x")
    assert names.are_suspect(X)
    assert not names.are_suspect(Y)
    assert names.are_suspect(Y, links=2)
