"""What an empty namenode does with the datanodes that come to it: wait, begin a cluster, or restore one. Pure.

Datanodes that belong to a cluster hold its metadata; a new cluster must not be begun over their heads. The newest
copy that is there names the datanodes that may have a newer one. Most of them have to come, so that no two namenodes
can restore it from different ones, and the others are waited for, for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dfslib.model import NodeId
from dfslib.namenode.checkpoint.branches import Branch, parted
from dfslib.namenode.upgrade.level import too_late
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL

HOW_TO_BEGIN: Final = (
    "`dfs restore` takes the metadata that datanodes keep; DFS_NEW_CLUSTER=true or `server.py --new-cluster` begins a "
    "new cluster"
)
NEW_S: Final = 5.0
"""A new cluster is begun when nobody new has come for so long: datanodes try to join every half second."""
GATHER_S: Final = 10.0
"""Datanodes that have not come are waited for until nobody new has come for so long."""

SETTLE_S: Final = 3.0
"""Where all have come whom the newest copy names that is there: one that joined the cluster after that copy was made is
named by none of them, and may have a newer one. Datanodes that are there try to join every half second."""


class Joiner(NamedTuple):
    """A datanode that wants to join. `cluster_id` is empty on a new volume. `epoch`, `level`: of its cluster, as it
    last met it. `position`: the newest one of the metadata that it was ever brought, empty where it does not know."""

    node: NodeId
    url: str
    cluster_id: str
    epoch: int
    level: int = OLDEST_LEVEL
    position: str = ""


class Wait(NamedTuple):
    """`detail`: for what, and what an operator can do."""

    detail: str


class NewCluster(NamedTuple):
    pass


class Survey(NamedTuple):
    """Find out to what the copies that these have lead, and tell it to `surveyed`."""

    sources: Sequence[Joiner]


class Restore(NamedTuple):
    """From the copies that these datanodes, of one cluster, have."""

    sources: Sequence[Joiner]


Decision = Wait | NewCluster | Survey | Restore


class Opening:
    def __init__(self, *, new_cluster: bool, only: str | None = None) -> None:
        """`new_cluster`: the operator has said that there is none to be restored. `only`: this store was being
        filled from that cluster's copies, and no other one, nor a new one, is to take its place."""
        self._new_cluster = new_cluster and only is None
        self._only = only
        self._joiners: dict[NodeId, Joiner] = {}
        self._last_new_s = 0.0
        self._surveyed: list[Joiner] = []
        self._branches: Sequence[Branch] = ()

    def joined(self, joiner: Joiner, now_s: float) -> None:
        if self._joiners.get(joiner.node) != joiner:
            self._joiners[joiner.node] = joiner
            self._last_new_s = now_s

    def surveyed(self, sources: Sequence[Joiner], found: Sequence[Branch]) -> None:
        """`found`: to what the copies that `sources` have lead; nothing where there is no copy."""
        self._surveyed, self._branches = list(sources), found

    @property
    def members(self) -> list[Joiner]:
        """Those who have come and belong to a cluster, to the right one where it is known."""
        joiners = self._joiners.values()
        return [joiner for joiner in joiners if joiner.cluster_id and self._only in (None, "", joiner.cluster_id)]

    def decide(self, now_s: float) -> Decision:
        if self._new_cluster:
            return NewCluster()
        if not self._joiners:
            return Wait(
                "there is no metadata here, and no datanode has come yet that may have a copy: start them; "
                f"{HOW_TO_BEGIN}"
            )
        quiet_s = now_s - self._last_new_s
        members = self.members
        if members:
            return self._decide_restore(members, quiet_s)
        if self._only is not None:
            return Wait(
                f"a restore of cluster {self._only} was begun here, and none of its datanodes has come: start them"
            )
        if quiet_s < NEW_S:
            come = "1 new datanode" if len(self._joiners) == 1 else f"{len(self._joiners)} new datanodes"
            return Wait(f"{come} came, others may be on their way")
        return NewCluster()

    def _decide_restore(self, members: list[Joiner], quiet_s: float) -> Decision:
        clusters = sorted({joiner.cluster_id for joiner in members})
        if len(clusters) > 1:
            return Wait(
                f"datanodes of several clusters have come ({', '.join(clusters)}): stop those that do not belong here "
                "and restart this namenode, or say which one to restore from (dfs restore --from URL)"
            )
        if (level := max(joiner.level for joiner in members)) > NEWEST_LEVEL:
            return Wait(too_late(f"cluster {clusters[0]}, whose datanodes have come,", level))
        if members != self._surveyed:
            return Survey(members)
        branch = self._chosen()
        if branch is None and self._branches:
            return Wait(f"{parted(self._branches)}; choose one with `dfs restore --from URL`")
        named = frozenset[NodeId]() if branch is None else branch.named
        away = named - {joiner.node for joiner in members}
        if 2 * len(away) >= len(named) > 0:
            return Wait(
                f"the newest copy that has come names {len(named)} datanodes, and most of them have to come, as they "
                f"may have a newer one; start {', '.join(sorted(node[:8] for node in away))}, or `dfs restore` what is "
                "there"
            )
        if quiet_s < (GATHER_S if away or not named else SETTLE_S):
            others = f"{len(away)} that the newest copy names" if away else "others"
            come = "1 datanode" if len(members) == 1 else f"{len(members)} datanodes"
            return Wait(f"{come} of cluster {clusters[0]} came; {others} may be on their way")
        if branch is not None:
            members = [joiner for joiner in members if joiner.node in branch.holders]
        return Restore(members)

    def _chosen(self) -> Branch | None:
        """Where copies have parted, the branch that most of the datanodes have that it names, if there is one."""
        if len(self._branches) == 1:
            return self._branches[0]
        found = [branch for branch in self._branches if 2 * len(branch.alone & branch.named) > len(branch.named)]
        return found[0] if len(found) == 1 else None
