"""What a build of DFS is able to do, by name, and which level of the cluster asks it of whom.

A cluster has a level, a number that only grows. It says what may be written and what may be demanded:

    level 1   the first format: whoever names no features knows this one
    level 2   the present one

A new cluster begins at the newest level of its namenode. An existing one stays where it is, whatever builds run, until
an operator says `dfs upgrade finalize`; until then nothing is written that the build before cannot read, and nothing
is demanded that it does not do. From then on whoever lacks a feature of the level is refused, and no build of before
opens what the namenode and the datanodes keep.

Processes name their features where they first meet: a datanode and the namenode in `JoinRequest` and `JoinAnswer`, a
mount and the namenode in `Hello` and `Welcome`. A feature that the other side has may be used with it at any level, as
long as nothing of it is kept; what is kept, or relied on, has to wait for the level (namenode/upgrade/level.py).

| feature            | level | of                        | what one that has it does                              |
|---|---|---|---|
| `levels`           | 2     | namenode, datanode, mount | knows levels, and keeps away from a later one          |
| `lock-generations` | 2     | namenode, mount           | does not keep what was written under a lost lock       |
| `lost-requests`    | 2     | namenode                  | knows which writes of a lost session were done         |
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from itertools import pairwise
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

VERSION: Final = "0.2.0"
"""Of this build, for people: programs go by features and levels."""
OLDEST_LEVEL: Final = 1
NEWEST_LEVEL: Final = 2
"""The latest one that this build knows."""
_COUNT_MAX: Final = 64
"""Features that a peer may name: some ten times those of today."""


class Role(enum.StrEnum):
    NAMENODE = "namenode"
    DATANODE = "datanode"
    MOUNT = "mount"


class Feature(NamedTuple):
    """`level`: the one that asks it of those whose role is in `of`."""

    name: str
    level: int
    of: frozenset[Role]


LEVELS: Final = Feature("levels", 2, frozenset(Role))
LOCK_GENERATIONS: Final = Feature("lock-generations", 2, frozenset({Role.NAMENODE, Role.MOUNT}))

LOST_REQUESTS: Final = Feature("lost-requests", 2, frozenset({Role.NAMENODE}))

FEATURES: Final = (LEVELS, LOCK_GENERATIONS, LOST_REQUESTS)
"""All that this build knows. What is written here is in the table above."""

LevelNumber = Annotated[int, Meta(ge=OLDEST_LEVEL, le=1 << 20)]
"""On the wire and in what is kept; one above NEWEST_LEVEL is a later build's."""
FeatureNames = Annotated[list[Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9-]{0,31}\Z")]], Meta(max_length=_COUNT_MAX)]
"""Features as a peer names them, sorted. It may know some that this build does not."""
Version = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z.+-]{0,32}\Z")]
"""A peer's version, for people; "" of one that does not tell."""


def named(role: Role) -> list[str]:
    """What this build names where it runs as `role`, sorted."""
    return sorted(feature.name for feature in FEATURES if role in feature.of)


def lacking(role: Role, names: Collection[str], level: int) -> list[str]:
    """What a peer of this role that names these features lacks for a cluster of this level, sorted."""
    return [name for name in named(role) if name not in names and _BY_NAME[name].level <= level]


def check_sorted(names: list[str]) -> None:
    """Raises ValueError unless they are in order, each once."""
    if any(a >= b for a, b in pairwise(names)):
        raise ValueError("`features` are to be sorted, each once")


_BY_NAME: Final = {feature.name: feature for feature in FEATURES}
