"""What stands before a store in tests that are not about that: nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dfslib.namenode.checkpoint.format import FileName
from dfslib.namenode.verification.guard import Remnant


class OpenGate:
    """A `keeper.Gate` before a store that is open, and never damaged."""

    remnant: Remnant | None = None

    async def admit(self) -> bool:
        return True

    async def check_first(self) -> None:
        raise AssertionError("it was admitted")

    def opened(self, cluster_id: str) -> None:
        pass

    def aside(self, target: Path) -> dict[FileName, Path]:
        return {}

    async def damaged(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError("it waits for ever")
