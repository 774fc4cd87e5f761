"""What an empty namenode does with the datanodes that come to it: wait, begin a cluster, or restore one. Pure.

Datanodes that belong to a cluster hold its metadata; a new cluster must not be begun over their heads. All that
are there come within seconds, so a decision is taken when nobody new has come for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dfslib.model import NodeId

QUIET_S: Final = 4.0
"""Longer than datanodes wait between two attempts to join (3 s)."""


class Joiner(NamedTuple):
    """A datanode that wants to join. `cluster_id` is empty on a new volume."""

    node: NodeId
    url: str
    cluster_id: str
    epoch: int


class Wait(NamedTuple):
    """`detail`: for what, and what an operator can do."""

    detail: str


class NewCluster(NamedTuple):
    pass


class Restore(NamedTuple):
    """From the copies that these datanodes, of one cluster, have."""

    sources: Sequence[Joiner]


Decision = Wait | NewCluster | Restore


class Opening:
    def __init__(self, *, new_cluster: bool) -> None:
        """`new_cluster`: the operator has said that there is none to be restored."""
        self._new_cluster = new_cluster
        self._joiners: dict[NodeId, Joiner] = {}
        self._last_new_s = 0.0

    def joined(self, joiner: Joiner, now_s: float) -> None:
        if self._joiners.get(joiner.node) != joiner:
            self._joiners[joiner.node] = joiner
            self._last_new_s = now_s

    @property
    def joiners(self) -> list[Joiner]:
        return list(self._joiners.values())

    def decide(self, now_s: float) -> Decision:
        if self._new_cluster:
            return NewCluster()
        if not self._joiners:
            return Wait("there is no metadata here, and no datanode has come yet that may have a copy")
        members = [joiner for joiner in self._joiners.values() if joiner.cluster_id]
        clusters = sorted({joiner.cluster_id for joiner in members})
        if len(clusters) > 1:
            return Wait(
                f"datanodes of several clusters have come ({', '.join(clusters)}): stop those that do not belong here"
            )
        if now_s - self._last_new_s < QUIET_S:
            return Wait(f"{len(self._joiners)} datanodes have come, others may be on their way")
        return Restore(members) if members else NewCluster()
