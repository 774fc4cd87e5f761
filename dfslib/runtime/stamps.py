"""Stamps that always grow, and how old they are, whatever happens to the wall clock.

The wall clock may jump by an hour in either direction; the monotonic clock does not, but means nothing to the
next process. So stamps are the wall clock's time, or one above the last stamp where that is greater, and their age is
told by samples of both clocks that this process has taken. What lies from before its start counts as new then.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

SAMPLE_EVERY_S: Final = 1.0


class Stamps:
    """For any thread: they are given in transactions, and asked for beside them."""

    def __init__(self, wall_ns: Callable[[], int], monotonic_s: Callable[[], float], longest_s: float) -> None:
        """`longest_s`: the greatest age that is going to be asked for."""
        self._wall_ns = wall_ns
        self._monotonic_s = monotonic_s
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._last = wall_ns()
        self._samples: deque[tuple[float, int]] = deque([(monotonic_s(), self._last)])
        """At that time, no greater stamp had been given."""

    def go_on_from(self, stamp: int) -> None:
        """None in the store is greater than this one: all to come are."""
        with self._lock:
            self._last = max(self._last, stamp)
            self._samples.append((self._monotonic_s(), self._last))

    def now(self) -> int:
        """A stamp: nanoseconds, about those since the epoch, and greater than all before, also those sampled."""
        with self._lock:
            self._sample()
            self._last = max(self._last + 1, self._wall_ns())
            return self._last

    def older_than(self, age_s: float) -> int:
        """The greatest stamp that is known to be at least so old; -1 where none is."""
        with self._lock:
            self._sample()
            limit = self._monotonic_s() - age_s
            found = -1
            for time_s, stamp in self._samples:
                if time_s > limit:
                    break
                found = stamp
            return found

    def _sample(self) -> None:
        """Under the lock."""
        now_s = self._monotonic_s()
        if now_s - self._samples[-1][0] < SAMPLE_EVERY_S:
            return
        self._samples.append((now_s, self._last))
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - self._longest_s:
            self._samples.popleft()
