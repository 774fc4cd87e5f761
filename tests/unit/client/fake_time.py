"""Time that passes only by sleeping, and clients that live in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dfslib.client.namenode import HttpNameNode
from dfslib.client.retrying import Timing


class FakeTime:
    """`on_sleep` is called in each pause: for what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.on_sleep()

    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self.sleep, chance=lambda: 1.0)


class Connect(Protocol):
    """Makes an HttpNameNode whose retries take no time."""

    def __call__(self, url: str, timeout_s: float = 5.0) -> HttpNameNode: ...
