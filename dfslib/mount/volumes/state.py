"""What a volume plugin has to know after a restart: its volumes, and which containers use them. One JSON file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dfslib.errors import InputOutput
from dfslib.runtime.durable_files import replace_file


class Volume(msgspec.Struct):
    """`subdir`: of the tree, absolute. `users`: the ids under which Docker has it mounted."""

    name: str
    subdir: str
    created: str
    """When, as RFC 3339 has it."""
    users: list[str] = []


class State:
    """Every change is on the disk before it is answered."""

    def __init__(self, path: Path) -> None:
        """Raises InputOutput where the file is there and cannot be read."""
        self._path = path
        self.volumes: dict[str, Volume] = {}
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputOutput(str(error), str(path)) from error
        try:
            self.volumes = {volume.name: volume for volume in msgspec.json.decode(data, type=list[Volume])}
        except msgspec.MsgspecError as error:
            raise InputOutput(f"not the state of a volume plugin: {error}", str(path)) from None

    def save(self) -> None:
        """Raises InputOutput."""
        try:
            replace_file(self._path, msgspec.json.encode(list(self.volumes.values())))
        except OSError as error:
            raise InputOutput(str(error), str(self._path)) from error
