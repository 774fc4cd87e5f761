"""Blocks that are being written and not yet in the metadata: no report and no collector may touch them.

What one await cannot split: a block is held before its first byte is sent, and released after the outcome
of the transaction that enters it is known.
"""

from __future__ import annotations

from collections import Counter

from dfslib.model import BlockId


class InFlight:
    """Counts the writers of each block; small files share one."""

    def __init__(self) -> None:
        self._writers: Counter[BlockId] = Counter()
        self._unsure: set[BlockId] = set()

    def __contains__(self, block: object) -> bool:
        return block in self._writers

    def hold(self, block: BlockId) -> None:
        self._writers[block] += 1

    def release(self, block: BlockId, *, used: bool) -> bool:
        """One writer is done; `used`: its transaction was committed.

        True when this was the last writer and one of them did not use the block: then somebody has to look
        whether it is garbage.
        """
        if not used:
            self._unsure.add(block)
        self._writers[block] -= 1
        if self._writers[block]:
            return False
        del self._writers[block]
        unsure = block in self._unsure
        self._unsure.discard(block)
        return unsure
