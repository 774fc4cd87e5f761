"""Blocks that are being written and not yet in the metadata: no report and no collector may touch them.

What one await cannot split: a block is held before its first byte is sent, and is in flight until the outcome of the
transaction that enters it is known. Where nobody saw it, that is when a later transaction has looked.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from dfslib.model import BlockId

_LATELY_S: Final = 75.0
"""Longer than a datanode waits for the answer to a page of its report: it may have made the page before it got them."""


class InFlight:
    """Counts the writers of each block; small files share one. `monotonic`: seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._writers: Counter[BlockId] = Counter()
        self._unsure: set[BlockId] = set()
        self._landed: dict[BlockId, float] = {}
        """When blocks were entered, the oldest first."""

    def __contains__(self, block: object) -> bool:
        return block in self._writers or block in self._unsure

    def landed_since(self, block: BlockId, since_s: float) -> bool:
        """Whether the block was in flight at that time or later, and has been entered since. Of times longer than
        _LATELY_S ago this is not known any more."""
        landed_s = self._landed.get(block)
        return landed_s is not None and landed_s >= since_s

    def is_held(self, block: BlockId) -> bool:
        """Whether somebody still writes it."""
        return block in self._writers

    def hold(self, block: BlockId) -> None:
        self._writers[block] += 1

    def release(self, block: BlockId, *, used: bool) -> bool:
        """One writer is done; `used`: its transaction was committed.

        True when this was the last writer and one of them did not use the block, or does not know: then it stays in
        flight until whoever has looked whether it is garbage says that it is `settled`.
        """
        if not used:
            self._unsure.add(block)
        self._writers[block] -= 1
        if self._writers[block]:
            return False
        del self._writers[block]
        if block in self._unsure:
            return True
        self._note_landed(block)
        return False

    def settled(self, block: BlockId, *, used: bool) -> None:
        """Somebody has looked."""
        self._unsure.discard(block)
        if used:
            self._note_landed(block)

    def _note_landed(self, block: BlockId) -> None:
        now_s = self._monotonic()
        self._landed.pop(block, None)
        self._landed[block] = now_s
        while now_s - self._landed[oldest := next(iter(self._landed))] > _LATELY_S:
            del self._landed[oldest]
