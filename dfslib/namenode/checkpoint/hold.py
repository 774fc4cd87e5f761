"""The time after a restore in which nothing is deleted from the datanodes.

What the copy does not know may be what was written after it was made. The time is that in which this namenode
runs, so that no jump of the clock shortens it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace import records
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.checkpoint")

COUNT_EVERY_S: Final = 60.0
"""At most so much longer than said it is held over a restart."""


class Hold:
    def __init__(self, engine: MetadataEngine, monotonic: Callable[[], float]) -> None:
        self._engine = engine
        self._monotonic = monotonic
        self._counted_s = monotonic()
        self.held = False

    def load(self) -> None:
        """As the store says, from now on."""
        record = self._engine.read(records.get_restored)
        self.held = record is not None and record.held_s > 0
        self._counted_s = self._monotonic()

    async def run_once(self) -> None:
        """Count the time that has passed; release when it is over."""
        if not self.held:
            return
        now_s = self._monotonic()
        passed_s, self._counted_s = now_s - self._counted_s, now_s
        await self._engine.transact(lambda txn: _count(txn, passed_s))
        was_held = self.held
        self.load()
        if was_held and not self.held:
            log.info(event("restored metadata is released", reason="the time is over"))

    async def release(self) -> None:
        """Delete again what no file uses. Does nothing where nothing is held."""
        if not self.held:
            return
        await self._engine.transact(lambda txn: _count(txn, float("inf")))
        self.load()
        log.info(event("restored metadata is released", reason="an operator said so"))


def _count(txn: Txn, passed_s: float) -> None:
    record = records.get_restored(txn)
    if record is not None:
        records.put_restored(txn, replace(record, held_s=max(0.0, record.held_s - passed_s)))
