"""What Docker asks of a volume plugin: volumes made and forgotten, mounted and unmounted.

All volumes of a host share one mount of the tree, a process of its own that outlives the plugin. It is there as long as
a container uses a volume. A volume is handed out as a mount of its own of a directory inside that mount, while it
answers: nothing is written to the local disk because the cluster is away, or because of a symbolic link in the tree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from dfslib.errors import Exists, InvalidArgument, NotFound, Unavailable
from dfslib.mount.fuse_mounting import unmount
from dfslib.mount.mounted import Life, is_mounted, life_of
from dfslib.mount.volumes.binding import bind, current, release
from dfslib.mount.volumes.state import State, Volume

_NAME_MAX: Final = 255
"""Bytes: of a directory's name."""
_ANSWER_S: Final = 20.0
"""Docker waits for a plugin for about so long before it tries again."""


class Place(NamedTuple):
    """`mountpoint`: of the tree. `attach` mounts it there; raises DfsError. `volumes`: where each has a directory."""

    mountpoint: Path
    volumes: Path
    attach: Callable[[], Awaitable[None]]


class Driver:
    """Calls come one at a time. `now`: the time, in UTC."""

    def __init__(self, state: State, place: Place, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._state = state
        self._place = place
        self._now = now
        self._turn = asyncio.Lock()

    async def create(self, name: str, options: dict[str, str]) -> None:
        """Raises InvalidArgument; Exists where the volume is there with another directory. The directory itself is made
        when the volume is mounted first."""
        async with self._turn:
            subdir = _subdir(name, options)
            known = self._state.volumes.get(name)
            if known is not None:
                if known.subdir != subdir:
                    raise Exists(f"the volume {name} is {known.subdir}")
                return
            created = self._now().isoformat(timespec="seconds").replace("+00:00", "Z")
            self._state.volumes[name] = Volume(name, subdir, created)
            self._state.save()

    async def remove(self, name: str) -> None:
        """Forget a volume; its directory stays in the tree. Raises NotFound, InvalidArgument while it is used."""
        async with self._turn:
            volume = self.get(name)
            if volume.users:
                raise InvalidArgument(f"the volume {name} is in use")
            del self._state.volumes[name]
            self._state.save()

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        volume = self._state.volumes.get(name)
        if volume is None:
            raise NotFound(f"there is no volume {name}")
        return volume

    def all(self) -> list[Volume]:
        return list(self._state.volumes.values())

    def path(self, volume: Volume) -> Path:
        """Where a volume is, while it is mounted."""
        return current(self._places(volume))

    def _places(self, volume: Volume) -> Path:
        return self._place.volumes / volume.name

    async def mount(self, name: str, user: str) -> Path:
        """The volume's directory, for one more container. Raises NotFound, Unavailable where the cluster is away."""
        async with self._turn:
            volume = self.get(name)
            is_new = user not in volume.users
            if is_new:
                volume.users.append(user)  # before it is mounted: nobody takes the mount away meanwhile
                self._state.save()
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await self._ready()
                    return await asyncio.to_thread(
                        bind, self._place.mountpoint, volume.subdir, self._places(volume)
                    )
            except BaseException as error:
                if is_new:  # else it was handed out before, and is in use
                    volume.users.remove(user)
                    self._state.save()
                if isinstance(error, TimeoutError):
                    raise Unavailable("the cluster does not answer") from None
                raise

    async def unmount(self, name: str, user: str) -> None:
        """One container less. The tree's mount goes with the last one of all volumes."""
        async with self._turn:
            volume = self.get(name)
            if user in volume.users:
                volume.users.remove(user)
                self._state.save()
            if not volume.users:
                await asyncio.to_thread(release, self._places(volume))
            if not any(one.users for one in self.all()):
                for one in self.all():  # of a mount that came too late for who asked
                    await asyncio.to_thread(release, self._places(one))
                if is_mounted(self._place.mountpoint):
                    await asyncio.to_thread(unmount, self._place.mountpoint, lazy=True)

    async def _ready(self) -> None:
        """Have the tree mounted, anew where its process has died."""
        life = await asyncio.to_thread(life_of, self._place.mountpoint)
        if life is Life.ANSWERS:
            return
        if life in (Life.FAILS, Life.SILENT):  # that may pass
            raise Unavailable("the cluster does not answer")
        await self._place.attach()


def _subdir(name: str, options: dict[str, str]) -> str:
    """Raises InvalidArgument."""
    if not name or len(name.encode()) > _NAME_MAX or "/" in name or "\0" in name or name in (".", ".."):
        raise InvalidArgument(f"{name!r} is no name of a volume")
    unknown = set(options) - {"subdir"}
    if unknown:
        raise InvalidArgument(f"unknown option {sorted(unknown)[0]!r}: there is only `subdir`")
    subdir = options.get("subdir") or f"/volumes/{name}"
    parts = [part for part in subdir.split("/") if part not in ("", ".")]
    if not subdir.startswith("/") or ".." in parts or "\0" in subdir:
        raise InvalidArgument(f"subdir={subdir}: an absolute path of the tree, without '..'")
    return "/" + "/".join(parts)

