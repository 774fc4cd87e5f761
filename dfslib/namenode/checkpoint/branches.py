"""Whether the copies that datanodes have lead to one past of the metadata, or to several that have parted. Pure.

The newest copy of each datanode is looked at. Where two namenodes served copies of one folder, these may have the same
numbers and be of different commits; a restore follows one of them, and puts together only what belongs together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dfslib.model import NodeId
from dfslib.namenode.checkpoint.format import Header
from dfslib.namenode.metadata.history import Lineage, Place, place_of_history


class Branch(NamedTuple):
    """`newest` is in nobody's past. `holders`: the datanodes whose newest copy is in its past, or is it; `alone`: those
    of them whose newest copy is in no other branch's past."""

    newest: Header
    holders: frozenset[NodeId]
    alone: frozenset[NodeId]

    @property
    def named(self) -> frozenset[NodeId]:
        """The datanodes that were to have a copy of it: those that may have a newer one."""
        return frozenset(NodeId(node) for node in self.newest.nodes)


def branches(newest: Mapping[NodeId, Header]) -> list[Branch]:
    """By the newest copy of each datanode; in the order of what they lead to."""
    tips: list[Header] = []
    for header in sorted(newest.values(), key=lambda header: (header.epoch, header.last), reverse=True):
        if not any(is_past(header, tip) for tip in tips):
            tips.append(header)
    holders = [frozenset(node for node, header in newest.items() if is_past(header, tip)) for tip in tips]
    found = []
    for index, tip in enumerate(tips):
        others = frozenset[NodeId]().union(*holders[:index], *holders[index + 1 :])
        found.append(Branch(tip, holders[index], holders[index] - others))
    return found


def is_past(header: Header, tip: Header) -> bool:
    """Whether a file leads to what another one leads to, or to something before it. What is of an earlier epoch is
    before; files of a release that keeps no lineage are compared by numbers."""
    if header.epoch != tip.epoch:
        return header.epoch < tip.epoch
    if header.history is None or tip.history is None:
        return header.last <= tip.last
    return place_of_history(header.history, tip.history) is Place.PAST


def joins(before: Header, after: Header) -> bool:
    """Whether a journal goes on from what the file before it leads to, as far as the two can tell."""
    if not is_past(before, after):
        return False
    linked = after.first == before.last + 1 and after.before and before.head is not None
    return not linked or (before.head is not None and after.before == before.head.chain)


def parted(found: Sequence[Branch]) -> str:
    """For people: branches, and who has them."""
    ends = (f"{described(branch.newest)} on {', '.join(sorted(node[:8] for node in branch.alone))}" for branch in found)
    return f"the copies on the datanodes are of namenodes that have parted: {'; '.join(ends)}"


def described(header: Header) -> str:
    """For people: the commit that a file leads to."""
    head = header.head
    if head is None:
        return f"commit {header.last} of epoch {header.epoch}"
    return described_commit(header.epoch, head)


def described_commit(epoch: int, head: Lineage) -> str:
    """For people."""
    when = time.strftime(" of %Y-%m-%dT%H:%M:%SZ", time.gmtime(head.time_ns / 1e9)) if head.time_ns else ""
    return f"commit {head.number}{when} of epoch {epoch} by run {head.run.hex() or 'unknown'}"
