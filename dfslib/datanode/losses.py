"""Blocks that this datanode had and has no more, until the namenode knows."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from dfslib.model import BlockId


class Losses:
    """For any thread. A block may be lost, come back and be lost again while the namenode is being told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: dict[BlockId, int] = {}
        self._count = 0

    def add(self, block: BlockId) -> None:
        with self._lock:
            self._count += 1
            self._lost[block] = self._count

    def untold(self) -> dict[BlockId, int]:
        """What the namenode has not been told, each with the number of its loss."""
        with self._lock:
            return dict(self._lost)

    def is_told(self, block: BlockId) -> bool:
        """Whether the namenode knows, as far as there is something to know."""
        with self._lock:
            return block not in self._lost

    def told(self, losses: Mapping[BlockId, int]) -> None:
        """The namenode has answered: it knows of these, but not of what was lost once more since."""
        with self._lock:
            for block, number in losses.items():
                if self._lost.get(block) == number:
                    del self._lost[block]
