"""The clocks that a server's parts are given, so that tests can give them others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dfslib.runtime.stamps import Stamps


class Clocks(NamedTuple):
    """`wall_ns`: for people, nanoseconds since the epoch; it may jump. `monotonic_s`: for intervals. `stamps`:
    for the age of what outlives the process."""

    wall_ns: Callable[[], int]
    monotonic_s: Callable[[], float]
    stamps: Stamps
