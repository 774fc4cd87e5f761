"""How long to go on after a failure, and how long to pause: exponential, with jitter. Does not decide what
may be repeated; that is `transport`'s.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FIRST_PAUSE_S: Final = 0.05
"""A namenode that restarts, or a connection that was closed while idle, is back about this soon."""
LONGEST_PAUSE_S: Final = 2.0
"""Short beside the seconds after which a silent datanode is avoided, so that its successor is soon tried."""


@dataclass(frozen=True)
class Timing:
    """The clock, sleep and chance that retries use; tests bring their own.

    `on_wait(reason, seconds_left)` is called before each pause, so that a user may be told.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    on_wait: Callable[[str, float], None] = field(default=lambda _reason, _left: None)


class Retries:
    """The pauses of one call. Time counts from its first failure, and anew after `progressed`."""

    def __init__(self, timeout_s: float, timing: Timing) -> None:
        self._timeout_s = timeout_s
        self._timing = timing
        self._deadline: float | None = None
        self._failures = 0

    def progressed(self) -> None:
        """The peer answers again: what fails after this is a new failure."""
        self._deadline, self._failures = None, 0

    def pause(self, reason: str) -> bool:
        """Wait before the next attempt. False, at once, when the time is up."""
        now = self._timing.clock()
        if self._deadline is None:
            self._deadline = now + self._timeout_s
        left = self._deadline - now
        if left <= 0:
            return False
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 30))
        self._failures += 1
        self._timing.on_wait(reason, left)
        self._timing.sleep(min(left, longest * (0.5 + self._timing.chance() / 2)))
        return True
