"""One mount from its beginning to its end: the file system, its binding, and a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dfslib.errors import DfsError, NotPermitted, NotSupported
from dfslib.mount.beneath import narrow
from dfslib.mount.clock import Clock
from dfslib.mount.filesystem import FileSystem
from dfslib.mount.fuse_mounting import MountOptions
from dfslib.mount.fuse_requests import Owners
from dfslib.mount.linux_binding import LinuxBinding
from dfslib.mount.mount_options import for_fusermount
from dfslib.mount.vfs import VFS, Options
from dfslib.runtime.logs import event
from dfslib.runtime.serving import tune_malloc

log = logging.getLogger("dfs.mount")


class MountSettings(NamedTuple):
    """What `dfs.py MOUNT HOST` asks for. `cache_bytes`, `timeout_s`: see vfs.Options. `uid`, `gid`: to whom all files
    are shown to belong. `kernel_options`: of KERNEL_OPTIONS, the later one before the earlier. `source`: what mount(8)
    shows as the device, if not the URL. `subdir`: the directory that is mounted; another than the root needs root."""

    url: str
    mountpoint: Path
    binding: str = ""
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    cache_bytes: int = 256 << 20
    timeout_s: float = 30.0
    kernel_options: tuple[str, ...] = ()
    source: str = ""
    subdir: str = "/"


def default_binding() -> str:
    return "linux" if sys.platform.startswith("linux") else "fusepy"


def run_mount(settings: MountSettings, ready: Callable[[], None]) -> bool:
    """Mount, call `ready` when it answers, and serve until it is unmounted or SIGTERM or SIGINT comes.

    Whether all that was written is on the datanodes. Raises what connecting and mounting raise.
    """
    tune_malloc()
    import uvloop  # a mount needs it; the rest of the command line does not

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(settings, ready))


async def _run(settings: MountSettings, ready: Callable[[], None]) -> bool:
    name = f"{socket.gethostname()}:{settings.mountpoint}"
    clock = Clock(time.time_ns, time.monotonic)
    vfs = VFS(settings.url, name, Options(settings.cache_bytes, settings.timeout_s), clock)
    await vfs.start()
    try:
        await _serve(vfs, settings, ready)
    finally:
        late = await vfs.close()
    log.info(event("unmounted", mountpoint=settings.mountpoint, files_not_written=late))
    return not late


async def _serve(filesystem: FileSystem, settings: MountSettings, ready: Callable[[], None]) -> None:
    narrowing = settings.subdir != "/"
    if narrowing and os.geteuid() != 0:
        raise NotPermitted("only root mounts a directory of the tree alone", settings.subdir)
    if (settings.binding or default_binding()) == "fusepy":
        if narrowing:
            raise NotSupported("this binding mounts the whole tree only", settings.subdir)
        from dfslib.mount import fusepy_binding  # needs libfuse, which the default does not

        await fusepy_binding.serve(filesystem, settings.mountpoint, _fusepy_options(settings), ready)
        return
    options = MountOptions(settings.source or settings.url, settings.kernel_options, settings.allow_other)
    binding = LinuxBinding(filesystem, settings.mountpoint, options, Owners(settings.uid, settings.gid))
    loop = asyncio.get_running_loop()
    stops: set[asyncio.Task[None]] = set()
    narrowings: set[asyncio.Task[None]] = set()

    def stop() -> None:
        if not stops:
            stops.add(loop.create_task(binding.stop(), name="stop"))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    failed: list[DfsError] = []

    async def narrow_first() -> None:
        """In a thread, since this one answers what it asks the mount."""
        try:
            await loop.run_in_executor(None, narrow, settings.mountpoint, settings.subdir)
        except DfsError as error:
            failed.append(error)
            await binding.stop()
        else:
            ready()

    def begin_narrowing() -> None:
        narrowings.add(loop.create_task(narrow_first(), name="narrow"))

    try:
        await binding.serve(begin_narrowing if narrowing else ready)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*stops, *narrowings)
    if failed:
        raise failed[0]


def _fusepy_options(settings: MountSettings) -> dict[str, object]:
    options: dict[str, object] = {"fsname": settings.source or settings.url}
    if sys.platform == "linux":
        options["subtype"] = "dfs"  # shows as fuse.dfs, by which mounts of DFS are known
    options |= dict.fromkeys(for_fusermount(settings.kernel_options), True)
    if settings.allow_other:
        options["allow_other"] = True
    if settings.uid is not None:
        options["uid"] = settings.uid
    if settings.gid is not None:
        options["gid"] = settings.gid
    return options
