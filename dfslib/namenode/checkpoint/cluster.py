"""Which cluster this namenode is, and whether it may speak for it yet."""

from __future__ import annotations

import enum

from dfslib.errors import Unavailable
from dfslib.namenode.upgrade.level import Level


class State(enum.StrEnum):
    CHECKING = "checking"
    """Whether the store is damaged is found out before it is opened."""
    OPEN = "open"
    WAITING = "waiting"
    RESTORING = "restoring"


class Cluster:
    """Shared by whatever needs the id; changed by `opening` and `restoring` alone."""

    def __init__(self) -> None:
        self.id = ""
        self.epoch = 0
        """How often the metadata was restored."""
        self.level = Level()
        self.state = State.WAITING
        self.detail = ""
        """What it waits for, for people."""
        self.restored_until_ns: int | None = None
        self.copied_until_ns: int | None = None

    def known(self, cluster_id: str, epoch: int, level: int) -> None:
        """There is metadata, which is not served yet."""
        self.id, self.epoch = cluster_id, epoch
        self.level.opened(level)

    def opened(self, cluster_id: str, epoch: int, level: int, restored_until_ns: int | None) -> None:
        self.id, self.epoch, self.restored_until_ns = cluster_id, epoch, restored_until_ns
        self.level.opened(level)
        self.state, self.detail = State.OPEN, ""

    def require_open(self) -> None:
        """Raises Unavailable."""
        if self.state is not State.OPEN:
            raise Unavailable(f"the namenode is {self.state}: {self.detail}")
