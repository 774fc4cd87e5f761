"""What is known of a store beside the store itself: a small file that is there when the store is not, or is damaged.

It says whose metadata the folder holds, so that a store that has been emptied is not taken for a new one, and what the
last check of the store found, so that the next start knows whether it may open it at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from crc32c import crc32c

from dfslib.runtime.durable_files import replace_file

NAME: Final = "store.json"


class SetAside(msgspec.Struct, frozen=True):
    """A store that was damaged: what was wrong with it, when that was found, and the folder that it is in now.
    `replaced`: there is another one in its place."""

    reason: str
    time_ns: int
    folder: str
    replaced: bool = False


class Marker(msgspec.Struct, frozen=True):
    """`begun`: something may have been acknowledged, by the cluster of this id (empty where it is not known).

    `suspect`: why the store is to be checked before it is opened. `absolved`: what a process has met in a store that
    was right when it was checked then. `starts`: how often the store was opened since all of it was last checked, at
    `checked_ns`. `uncopied`: it was restored, and no datanode has a copy of what it is since.
    """

    cluster_id: str = ""
    begun: bool = False
    suspect: str = ""
    absolved: str = ""
    starts: int = 0
    checked_ns: int = 0
    set_aside: SetAside | None = None
    uncopied: bool = False


class _File(msgspec.Struct, frozen=True):
    crc32c: str
    store: msgspec.Raw


def read_marker(folder: Path) -> Marker | None:
    """None where there is none. One that was changed tells no more than that there was a store. Raises OSError."""
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    try:
        file = msgspec.json.decode(data, type=_File)
        if file.crc32c == _sum(file.store):
            return msgspec.json.decode(file.store, type=Marker)
    except msgspec.MsgspecError:
        pass
    return Marker(begun=True, suspect=f"{NAME} is damaged, which says what was known of the store")


def write_marker(folder: Path, marker: Marker) -> None:
    """Durable when it returns. Raises OSError."""
    store = msgspec.json.encode(marker)
    replace_file(folder / NAME, msgspec.json.encode(_File(_sum(store), msgspec.Raw(store))) + b"\n")


def _sum(data: bytes | msgspec.Raw) -> str:
    return f"{crc32c(bytes(data)):08x}"
