"""Ids that grow with time and never repeat, and the clock they come from."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from dfslib.model import BlockId

Clock = Callable[[], int]
"""Nanoseconds since the epoch."""

_RANDOM_BITS = 20


class BlockIds:
    """Makes block ids: 44 bits of milliseconds, 20 random bits, always above the last one made.

    Time in front keeps neighbours in time neighbours in the metadata. The random bits keep ids apart that
    are made after a restart with the clock set back, or after metadata was restored from a copy.
    """

    def __init__(self, clock: Clock = time.time_ns) -> None:
        self._clock = clock
        self._last = 0

    def __call__(self) -> BlockId:
        now = (self._clock() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        self._last = max(now, self._last + 1)
        return BlockId(self._last)
