"""Tasks with an owner: all have ended when it has."""

from __future__ import annotations

import asyncio

from dfslib.runtime.tasks import Tasks


def test_what_ending_tasks_begin_has_ended_too() -> None:
    async def run() -> None:
        tasks = Tasks()
        ended: list[str] = []

        async def work(generations: int) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(f"{generations} left")
                if generations:
                    tasks.spawn(begun(generations - 1), "of its end")

        async def begun(generations: int) -> None:
            await work(generations)

        tasks.spawn(work(1), "work")
        await asyncio.sleep(0)
        await tasks.close()
        assert ended[0] == "1 left"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
