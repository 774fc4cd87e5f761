"""The level of this cluster (wire/features.py), for whoever writes or demands what only a later build knows.

    if cluster.level.has(SOMETHING): ...            on the event loop
    if records.get_level(txn) >= SOMETHING.level:   in a transaction, where what is written depends on it

It only grows, and never within a transaction: what was decided by it stays right.
"""

from __future__ import annotations

from collections.abc import Collection

from dfslib.errors import InvalidArgument
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL, Feature, Role, lacking


class Level:
    """`current`: as the store has it, durably. `demanded`: of those who come; ahead of `current` while that is being
    raised, so that nobody slips in."""

    def __init__(self) -> None:
        self.current = self.demanded = OLDEST_LEVEL

    def opened(self, level: int) -> None:
        """The store has this level."""
        self.current = self.demanded = level

    def has(self, feature: Feature) -> bool:
        """Whether the cluster's level lets what this feature is about be kept and relied on."""
        return self.current >= feature.level

    def require(self, role: Role, features: Collection[str]) -> None:
        """Raises InvalidArgument where a peer that names these features is of a build from before the level."""
        if lacks := lacking(role, features, self.demanded):
            raise InvalidArgument(
                f"this cluster has level {self.demanded}, and this {role} does not know {', '.join(lacks)}: "
                f"update the {role}"
            )


def too_late(what: str, level: int) -> str:
    """For people: this build does not know the level of something."""
    return (
        f"{what} has level {level}, and this version of DFS knows levels up to {NEWEST_LEVEL}: "
        "start the version that was here last, or a later one"
    )
