"""The table of locks against the plainest model there is: who has each byte, and how."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dfslib.model import InodeId
from dfslib.namenode.sessions.locks import Held, LockTable, Owner, Place, would_deadlock

BYTES = 12
PLACE = Place(InodeId(5), flock=False)
OWNERS = [Owner("s1", 1), Owner("s1", 2), Owner("s2", 1)]

steps = st.tuples(
    st.sampled_from(["read", "write", "release", "end session"]),
    st.sampled_from(OWNERS),
    st.integers(0, BYTES - 1),
    st.integers(0, BYTES - 1),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=25))
def test_every_byte_is_held_by_whom_it_should_be(history: list[tuple[str, Owner, int, int]]) -> None:
    table = LockTable()
    model: list[dict[Owner, bool]] = [{} for _ in range(BYTES)]
    for what, owner, one, other in history:
        start, end = min(one, other), max(one, other)
        span = range(start, end + 1)
        if what == "end session":
            table.release_session(owner.session)
            for held in model:
                for gone in [holder for holder in held if holder.session == owner.session]:
                    del held[gone]
        elif what == "release":
            table.release(PLACE, Held(owner, False, start, end, 0))
            for byte in span:
                model[byte].pop(owner, None)
        else:
            lock = Held(owner, what == "write", start, end, 7)
            free = all(
                holder == owner or not (write or lock.write) for byte in span for holder, write in model[byte].items()
            )
            assert (not any(table.conflicts(PLACE, lock))) == free
            if free:
                table.grant(PLACE, lock)
                for byte in span:
                    model[byte][owner] = lock.write
        check(table, model)


def check(table: LockTable, model: list[dict[Owner, bool]]) -> None:
    stranger = Owner("stranger", 0)
    found: list[dict[Owner, bool]] = [{} for _ in range(BYTES)]
    locks = list(table.conflicts(PLACE, Held(stranger, True, 0, BYTES - 1, 0)))
    for lock in locks:
        for byte in range(lock.start, lock.end + 1):
            assert lock.owner not in found[byte]
            found[byte][lock.owner] = lock.write
    assert found == model
    for lock in locks:  # neighbours of one kind are one lock
        assert not any(
            other.owner == lock.owner and other.write == lock.write and other.start == lock.end + 1 for other in locks
        )
    assert table.count("s1") == sum(lock.owner.session == "s1" for lock in locks)


def test_deadlocks_are_seen_through_any_number_of_others() -> None:
    a, b, c, d = (Owner("s", number) for number in range(4))
    waits = {a: {b}, b: {c}}
    assert would_deadlock(waits, c, {a})
    assert not would_deadlock(waits, d, {a})
    assert not would_deadlock({}, a, {b})
    assert would_deadlock({b: {b, a}}, a, {b})
