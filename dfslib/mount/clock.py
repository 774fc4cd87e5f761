"""What time it is for a mount."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Clock(NamedTuple):
    """`wall_ns`: nanoseconds since the epoch. `monotonic_s`: seconds."""

    wall_ns: Callable[[], int]
    monotonic_s: Callable[[], float]
