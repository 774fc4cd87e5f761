"""How long to pause so that background work keeps to a number of bytes a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_BURST_S: Final = 0.25
"""Time that was not used is made up for no longer than this: else a pause of the work ended in a flood."""


class Pace:
    """Shared by all that are to keep to the rate together; not by several threads at once."""

    def __init__(self, bytes_per_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_s = bytes_per_s
        """May be changed at any time."""
        self._monotonic = monotonic
        self._free_s = float("-inf")

    def delay_s(self, count: int) -> float:
        """Note that `count` bytes were taken; the seconds to wait before more are."""
        now = self._monotonic()
        self._free_s = max(self._free_s, now - _BURST_S) + count / self.bytes_per_s
        return max(0.0, self._free_s - now)
