"""The past of a store, commit by commit, and whether a commit belongs to it. Pure.

A commit's number says how far a store had come, and nothing of where: a copy that was put back and went on has the same
numbers as what it lacks. So commits belong to runs. A run begins whenever a store is opened, under a random id; a store
that has commit 7 of a run has all that came before it, and only one store can have made it.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

import msgspec

UNKNOWN_RUN: Final = b""
"""Of commits that a release made that kept no lineage."""


class Lineage(msgspec.Struct, frozen=True, array_like=True):
    """A commit: its run and number, the hash of it and all before it (`chain`), what the store's keys added up to after
    it (`digest`), and when it was made. `number` is 0 before the first one."""

    run: bytes
    number: int
    chain: bytes
    digest: bytes
    time_ns: int


class Run(msgspec.Struct, frozen=True, array_like=True):
    """A run's commits begin with `first`. `before` is the chain of the commit before that one, empty where it is not
    known."""

    id: bytes
    first: int
    before: bytes


class History(NamedTuple):
    """`head` is the last commit; `runs` are in the order of their numbers. The earliest ones may have been dropped."""

    head: Lineage
    runs: tuple[Run, ...]


class Place(enum.Enum):
    """Where a commit stands towards a history."""

    PAST = enum.auto()
    """It is one of the history's commits."""
    LATER = enum.auto()
    """The history's last commit is in its own past."""
    APART = enum.auto()
    """Neither: both went on from where they parted, or too little is known of the commit."""


def place_of(run: bytes, number: int, chain: bytes, history: History) -> Place:
    """Of a commit of which no more than this is known. One from before the earliest run that the history has kept
    counts as its past."""
    head, runs = history
    if number == 0:
        return Place.PAST
    if run == UNKNOWN_RUN:
        return Place.APART
    if number > head.number:
        return Place.LATER if run == head.run else Place.APART
    if number == head.number and chain != head.chain:
        return Place.APART
    after: Run | None = None
    for one in reversed(runs):
        if one.first <= number:
            parted = after is not None and after.first == number + 1 and after.before not in (b"", chain)
            return Place.APART if one.id != run or parted else Place.PAST
        after = one
    return Place.PAST


def place_of_history(other: History, history: History) -> Place:
    """Of another history's last commit."""
    head = other.head
    place = place_of(head.run, head.number, head.chain, history)
    if place is Place.APART:
        ours = history.head
        if place_of(ours.run, ours.number, ours.chain, other) is Place.PAST:
            return Place.LATER
    return place
