"""Runs a volume plugin: its socket, and the tree's mount as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dfslib.errors import Unavailable
from dfslib.mount.volumes.app import make_app
from dfslib.mount.volumes.driver import Driver, Place
from dfslib.mount.volumes.state import State
from dfslib.runtime.logs import event
from dfslib.runtime.serving import serve_unix

log = logging.getLogger("dfs.volumes")


class PluginSettings(NamedTuple):
    """`folder`: state, log and the tree's mount. `options`: of that mount, as for `-o`. `script`: dfs.py."""

    url: str
    socket: Path
    folder: Path
    options: Sequence[str]
    script: Path


def run_plugin(settings: PluginSettings) -> None:
    """Serve until SIGTERM or SIGINT. Mounts stay: containers use them. Raises OSError, InputOutput."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    mountpoint = settings.folder / "mnt"
    with contextlib.suppress(FileExistsError):  # no look at what is there: it may be a mount that does not answer
        mountpoint.mkdir()
    state = State(settings.folder / "volumes.json")

    async def attach() -> None:
        """Docker waits; a mount that cannot be is an error within its timeout."""
        words = [sys.executable, str(settings.script), "--log", str(settings.folder / "mount.log")]
        options = ",".join(["allow_other", *settings.options])
        process = await asyncio.create_subprocess_exec(
            *words, "-o", options, str(mountpoint), settings.url,
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        _, said = await process.communicate()
        if process.returncode:
            raise Unavailable(said.decode("utf-8", "replace").strip().removeprefix("dfs: ") or "it cannot be mounted")

    driver = Driver(state, Place(mountpoint, settings.folder / "volumes", attach))
    settings.socket.parent.mkdir(parents=True, exist_ok=True)
    log.info(event("volume plugin", socket=settings.socket, namenode=settings.url, volumes=len(state.volumes)))
    asyncio.run(serve_unix(make_app(driver), settings.socket, (signal.SIGTERM, signal.SIGINT)))
