"""Which of a volume's processes this is, so that two copies of one volume are told apart.

    incarnation.json    {starts, names}: how many processes have joined with this volume, and how each of them was
                        called, the latest one last

A file of its own: a release that knows nothing of it leaves it as it is. A copy of the volume has the same file up to
when it was made; from then on each of the two has names that the other one has not.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from dfslib.runtime.durable_files import replace_file
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.volume")

_FILE: Final = "incarnation.json"
_NAMES_MAX: Final = 100
"""Starts that a namenode's metadata may be behind, as after it was restored from an older copy."""


class _Starts(msgspec.Struct, frozen=True):
    starts: Annotated[int, msgspec.Meta(ge=0)] = 0
    names: list[str] = []


class Incarnation(NamedTuple):
    """A process: `starts` is its number among those of the volume, `ancestors` are those before it. `name` is empty
    where the volume cannot remember it."""

    name: str
    starts: int
    ancestors: list[str]


NONE: Final = Incarnation("", 0, [])


def begin(root: Path, new_name: Callable[[], str] = lambda: uuid.uuid4().hex) -> Incarnation:
    """A new incarnation, durable on the volume. To be called once a process, before anyone is told of it.

    One that could be forgotten would make the next start a stranger. So a volume that takes no writes gives none.
    """
    before = _read(root / _FILE)
    name = new_name()
    now = _Starts(before.starts + 1, [*before.names, name][-_NAMES_MAX:])
    try:
        replace_file(root / _FILE, msgspec.json.encode(now) + b"\n")
    except OSError as error:
        log.warning(event("start cannot be noted", root=root, reason=error, action="joining without an incarnation"))
        return NONE
    return Incarnation(name, now.starts, now.names[:-1])


def _read(path: Path) -> _Starts:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Starts)
    except FileNotFoundError:
        return _Starts()
    except (msgspec.MsgspecError, OSError) as error:
        # The blocks are as good as ever. The namenode takes this for an older copy of the volume.
        log.warning(event("starts of the volume cannot be read", path=path, reason=error, action="counted anew"))
        return _Starts()
