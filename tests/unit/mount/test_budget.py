"""The bound on what is not written yet: it is kept, first come, first served, and everybody who waits is told."""

from __future__ import annotations

import asyncio

import pytest

from dfslib.errors import Unavailable
from dfslib.mount.budget import Budget


class Noting:
    """A budget of 100 bytes, and what it told."""

    def __init__(self, timeout_s: float) -> None:
        self.pressed = 0
        self.told: list[int] = []
        self.budget = Budget(100, timeout_s, self._press, self.told.append)

    def _press(self) -> None:
        self.pressed += 1


def test_who_comes_first_is_served_first_and_the_rest_of_the_mount_is_told() -> None:
    async def run() -> None:
        noting = Noting(30.0)
        budget = noting.budget
        order: list[int] = []

        async def take(size: int) -> None:
            await budget.take(size)
            order.append(size)

        await take(90)
        waiting = [asyncio.create_task(take(size)) for size in (50, 5)]
        await asyncio.sleep(0)
        assert (order, noting.pressed) == ([90], 2)  # 5 would fit, and waits for its turn
        budget.give(90)
        await asyncio.gather(*waiting)
        assert order == [90, 50, 5]
        assert noting.told == [90, 0, 50, 55]
        assert budget.used_bytes == 55

    asyncio.run(run())


def test_a_write_larger_than_all_is_taken_alone() -> None:
    async def run() -> None:
        budget = Noting(30.0).budget
        await budget.take(1000)
        large = asyncio.create_task(budget.take(1000))
        await asyncio.sleep(0)
        assert not large.done()
        budget.give(1000)
        await large
        assert budget.used_bytes == 1000

    asyncio.run(run())


def test_who_gives_up_takes_nothing_and_lets_the_next_one_in() -> None:
    async def run() -> None:
        hurried = Noting(0.01).budget
        await hurried.take(60)
        with pytest.raises(Unavailable):
            await hurried.take(50)
        assert hurried.used_bytes == 60
        budget = Noting(30.0).budget
        await budget.take(60)
        impatient = asyncio.create_task(budget.take(50))
        small = asyncio.create_task(budget.take(40))
        await asyncio.sleep(0)
        impatient.cancel()
        await small
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert budget.used_bytes == 100

    asyncio.run(run())
