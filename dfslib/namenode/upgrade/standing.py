"""Who stands in the way of a higher level of the cluster. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from dfslib.namenode.membership.registry import NodeState
from dfslib.wire.features import Role, lacking

_TOLD_MAX: Final = 8
"""Names in a refusal, which is one line."""


def of_datanode(
    *, state: NodeState, present: bool, drained: bool, to_move: int | None, features: Collection[str], level: int
) -> str:
    """Why a datanode keeps the cluster from this level; "" where it does not.

    `present`: it has joined since the namenode started. One that is drained may stay behind when it is dead, or nothing
    of what it has is needed: before that, blocks of which nobody else has a copy would be out of reach.
    """
    if drained and (state is NodeState.DEAD or to_move == 0):
        return ""
    rest = "wait until it is drained" if drained else "drain or forget it"
    if not present:
        return f"has not joined since the namenode started: start it, or {rest}"
    if lacks := lacking(Role.DATANODE, features, level):
        return f"does not know {', '.join(lacks)}: update it, or {rest}"
    return ""


def of_mount(*, back: bool, features: Collection[str], level: int) -> str:
    """Why a mount keeps the cluster from this level; "" where it does not. `back`: it has come since the namenode
    started, so that its features are known."""
    if not back:
        return "has not come back since the namenode started: wait until it does, or its session ends"
    lacks = lacking(Role.MOUNT, features, level)
    return f"does not know {', '.join(lacks)}: update it" if lacks else ""


def refusal(level: int, obstacles: Sequence[str]) -> str:
    """One line for people, whatever names peers have given themselves."""
    told = "; ".join(obstacles[:_TOLD_MAX])
    more = f"; and {len(obstacles) - _TOLD_MAX} more" if len(obstacles) > _TOLD_MAX else ""
    text = f"the cluster stays at level {level}: {told}{more}"
    return "".join(character if character.isprintable() else "?" for character in text)
