"""Who is told of commits, each on its own: one that fails takes nothing from the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dfslib.namenode.metadata.engine import Journal, Watch, Writes

log = logging.getLogger("dfs.metadata")


class Listeners:
    """What every engine does of `MetadataEngine.journal` and `watch`."""

    def __init__(self) -> None:
        self.journal: Journal | None = None
        self.watch: Watch | None = None

    def tell(self, number: int, writes: Writes, each: Sequence[tuple[object, Writes]]) -> None:
        """Of commit `number`, durable by now: `writes` are all its changes, `each` those of its transactions."""
        if self.journal is not None:
            try:
                self.journal(number, writes)
            except Exception:
                log.exception("the journal of commits failed at commit %d", number)
        if self.watch is not None:
            try:
                self.watch(each)
            except Exception:
                log.exception("the watch of commits failed at commit %d", number)
