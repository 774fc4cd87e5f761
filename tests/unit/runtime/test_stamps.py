"""Nothing is called old before it is, and all that is old is called so soon, whatever the wall clock does."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from dfslib.runtime.stamps import SAMPLE_EVERY_S, Stamps

HOUR_S = 3600.0
AGE_S = 600.0


class Clock:
    def __init__(self) -> None:
        self.wall_s = 1_000_000.0
        self.monotonic_s = 0.0

    def wall_ns(self) -> int:
        return int(self.wall_s * 1e9)

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds

    def stamps(self, at_least: int = 0) -> Stamps:
        stamps = Stamps(self.wall_ns, lambda: self.monotonic_s, AGE_S)
        stamps.go_on_from(at_least)
        return stamps


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0, 2 * AGE_S)),
        st.tuples(st.just("jump"), st.sampled_from([-HOUR_S, HOUR_S, -1.0, 1.0])),
        st.tuples(st.just("stamp"), st.just(0.0)),
        st.tuples(st.just("look"), st.just(0.0)),
        st.tuples(st.just("restart"), st.just(0.0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_age_is_that_of_the_monotonic_clock(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    stamps, started_s = clock.stamps(), 0.0
    given_out: list[tuple[int, float]] = []
    for step, value in steps:
        if step == "pass":
            clock.pass_by(value)
        elif step == "jump":
            clock.wall_s += value
        elif step == "restart":
            stamps, started_s = clock.stamps(max([stamp for stamp, _ in given_out], default=0)), clock.monotonic_s
        elif step == "stamp":
            stamp = stamps.now()
            assert all(stamp > earlier for earlier, _ in given_out)
            given_out.append((stamp, clock.monotonic_s))
        else:
            horizon = stamps.older_than(AGE_S)
            for stamp, when_s in given_out:
                if stamp <= horizon:
                    assert clock.monotonic_s - when_s >= AGE_S
    # Looked at again and again, as the collector does, everything becomes old.
    for _ in range(int(AGE_S) + 3):
        clock.pass_by(SAMPLE_EVERY_S)
        stamps.older_than(AGE_S)
    assert all(stamp <= stamps.older_than(AGE_S) for stamp, _ in given_out)
    assert clock.monotonic_s - started_s >= AGE_S


def test_the_samples_are_bounded() -> None:
    clock = Clock()
    stamps = clock.stamps()
    for _ in range(5000):
        clock.pass_by(1.5)
        stamps.now()
    assert len(stamps._samples) <= AGE_S + 2


def test_threads_may_give_them_and_ask_for_their_age_at_once() -> None:
    clock = Clock()
    stamps = clock.stamps()
    ended = threading.Event()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            while not ended.is_set():
                stamps.older_than(1)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    given_out = []
    for _ in range(20_000):
        clock.pass_by(1.5)
        given_out.append(stamps.now())
    ended.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert given_out == sorted(set(given_out))
