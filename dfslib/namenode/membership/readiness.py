"""When a datanode that has started is ready: what a rolling update waits for before it stops the next one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from dfslib.namenode.membership.registry import NodeState

_REJOINED_S: Final = 10.0
"""Datanodes that run have joined a namenode that was restarted by then, and told whether they are ready."""


class Other(NamedTuple):
    """A datanode besides the one that asks. `ready`: it has been told so since its process started."""

    state: NodeState
    leaving: bool
    ready: bool


def is_ready(others: Iterable[Other], *, repairing: bool, up_s: float) -> bool:
    """Whether nobody is away for a moment, and no copies are to be made. `up_s`: since the namenode started.

    Where no other datanode is ready, as when all have started at once, there is no update to be held back, and none to
    serve meanwhile: the mesh sends nobody to a datanode that is not ready. One that is dead is not waited for; what
    it held is repaired by then, or cannot be.
    """
    seen = list(others)
    away = any(other.leaving or other.state is NodeState.SUSPECT for other in seen)
    if not any(other.ready and other.state is NodeState.ALIVE for other in seen):
        return not away or up_s >= _REJOINED_S
    return not away and not repairing
