"""Whether a store that has metadata may be served: whether its datanodes agree that it is the newest. Pure.

A folder does not tell that it is an old copy of itself, or that another copy went on elsewhere. The datanodes do: each
was brought what was committed. So half of those that the store knows are heard before anything is served or
acknowledged. Those that are drained do not count, and those that are dead: that is written in the store while it is
served, so that a silence since the start is none.

One that was brought commits of which the store's last one is the past shows that the store is old, whatever others say:
nothing is lost by giving it up. Where the store and a datanode have parted, each has something that the other has not;
then the greater part of all datanodes decides, and where there is none, a person.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dfslib.model import NodeId
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.metadata.history import Place

HOW_TO_OPEN = "`dfs namenode open --force` serves what is here as it is"


class Known(NamedTuple):
    """A datanode that the store knows and counts."""

    node: NodeId
    url: str


class Heard(NamedTuple):
    """Where the newest commit that a datanode was brought stands towards the store, and what to say of it."""

    place: Place
    detail: str


class Serve(NamedTuple):
    pass


class Outdated(NamedTuple):
    """The metadata is to be restored from the datanodes."""

    detail: str


class Undecided(NamedTuple):
    """`detail`: whom it waits for, and what an operator can do."""

    detail: str


Verdict = Serve | Outdated | Undecided


class Quorum:
    def __init__(self, known: Iterable[Known]) -> None:
        self._known = {one.node: one for one in known}
        self._heard: dict[NodeId, Heard] = {}

    def hear(self, joiner: Joiner, heard: Heard) -> None:
        """What was found out of a datanode of the cluster, which may be one that the store does not know."""
        self._heard[joiner.node] = heard

    def decide(self, *, silent_are_dead: bool = False) -> Verdict:
        """`silent_are_dead`: the store cannot tell who was dead, and those that have not come have had their time."""
        for heard in self._heard.values():
            if heard.place is Place.LATER:
                return Outdated(heard.detail)
        counted = {node: heard for node, heard in self._heard.items() if node in self._known}
        agreeing = [node for node, heard in counted.items() if heard.place is Place.PAST]
        parted = [heard for heard in counted.values() if heard.place is Place.APART]
        all_count = len(counted) if silent_are_dead and counted else len(self._known)
        if 2 * len(agreeing) >= all_count:
            return Serve()
        if 2 * len(parted) > all_count:
            return Outdated(f"most of its datanodes have other metadata: {parted[0].detail}")
        return Undecided(self._waiting_for(len(agreeing), parted))

    def _waiting_for(self, agreeing: int, parted: list[Heard]) -> str:
        needed = (len(self._known) + 1) // 2
        away = [f"{one.node[:8]} at {one.url}" for one in self._known.values() if one.node not in self._heard]
        text = (
            f"this metadata may be an old copy, and is served when {needed} of its {len(self._known)} datanodes have "
            f"shown that it is not ({agreeing} so far)"
        )
        if parted:
            text += f"; {'; '.join(heard.detail for heard in parted)}"
        if away:
            text += f"; start {', '.join(away)}"
        return f"{text}; {HOW_TO_OPEN}"
