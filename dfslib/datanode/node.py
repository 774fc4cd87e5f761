"""The datanode as a whole: its settings, what it is made of, and the order in which that starts and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from aiohttp import web

from dfslib.config import load_for
from dfslib.datanode.app import make_app
from dfslib.datanode.commit_queue import CommitQueue
from dfslib.datanode.layouts import Layouts
from dfslib.datanode.losses import Losses
from dfslib.datanode.metrics import Metrics
from dfslib.datanode.namenode_client import NamenodeClient
from dfslib.datanode.registration import Addresses, Registration
from dfslib.datanode.replication import Replication
from dfslib.datanode.scrub import Scrubber
from dfslib.datanode.scrub import Volume as ScrubbedVolume
from dfslib.datanode.services import Services
from dfslib.datanode.store.block_store import BlockStore, Finding
from dfslib.datanode.store.metadata_files import MetadataFiles
from dfslib.datanode.store.volume import Volume
from dfslib.datanode.store.volume_sync import VolumeSync
from dfslib.datanode.web.short_requests import ShortRequests
from dfslib.model import BlockId
from dfslib.runtime.logs import event
from dfslib.transfer.peer_session import open_peer_session

log = logging.getLogger("dfs.datanode")

_DISK_THREADS: Final = 16
"""Enough requests in the disk's queue to keep an SSD busy; more would only take turns."""
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::", "[::]", "*"})


@dataclass(frozen=True)
class Settings:
    """A datanode's `DFS_*` variables, parsed. Sizes are bytes, times seconds."""

    root: Path
    namenode_url: str
    addresses: Addresses
    reserved_bytes: int
    body_timeout_s: float
    repair_bytes_per_s: int
    scrub_every_s: float

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises ConfigError."""
        values = load_for("datanode", env)
        port: int = values["DFS_PORT"]
        return cls(
            root=values["DFS_FS_ROOT"],
            namenode_url=values["DFS_NAMENODE_URL"],
            addresses=Addresses(
                port=port,
                url=advertised_url(values["DFS_ADVERTISE_HOST"], values["DFS_HOST"], port),
                public_url=values["DFS_PUBLIC_URL"] or "",
            ),
            reserved_bytes=values["DFS_RESERVED_SPACE"],
            body_timeout_s=values["DFS_BODY_TIMEOUT"],
            repair_bytes_per_s=values["DFS_REPAIR_RATE"],
            scrub_every_s=values["DFS_SCRUB_EVERY"],
        )


def advertised_url(advertise_host: str | None, host: str, port: int) -> str:
    """Where peers reach this datanode, or "" where that depends on where the namenode is."""
    chosen = advertise_host or ("" if host in _WILDCARDS else host)
    if not chosen:
        return ""
    if ":" in chosen and not chosen.startswith("["):
        chosen = f"[{chosen}]"  # an IPv6 address (RFC 3986, 3.2.2)
    return f"http://{chosen}:{port}/"


class DataNode:
    """A node for server.py (runtime.serving.Node): `DFS_NODE_CLASS=data_node.DataNode`."""

    event_loop: ClassVar[str] = "asyncio"
    """uvloop has no sendfile, and blocks are sent with it."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._registration: Registration | None = None
        self._running: Services | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> DataNode:
        """Raises ConfigError; touches nothing."""
        return cls(Settings.from_env(env))

    def app(self) -> web.Application:
        """The application. Its start raises ForeignVolume or OSError where the volume cannot be used."""
        return make_app(
            self._services,
            self._is_registered,
            lambda: self._registration is not None and self._registration.ready,
        )

    def connection(self, inner: asyncio.Protocol) -> asyncio.Protocol:
        """Short requests for blocks are answered before the framework sees them."""
        return ShortRequests(inner, self._running_services)

    def _is_registered(self) -> bool:
        return self._registration is not None and self._registration.registered

    def _running_services(self) -> Services:
        assert self._running is not None
        return self._running

    async def run_while_serving(self) -> None:
        """Keep the namenode informed, from when the socket accepts until cancelled.

        Raises ForeignVolume where this volume is another cluster's, Fenced where another process is this datanode:
        the process must end then.
        """
        if self._registration is None:
            raise RuntimeError("the application has not been started")
        await self._registration.run()

    async def before_stop(self) -> None:
        """Say good-bye to the namenode; `run_while_serving` has ended."""
        if self._registration is not None:
            await self._registration.leave()

    @asynccontextmanager
    async def _services(self) -> AsyncIterator[Services]:
        settings = self._settings
        metrics = Metrics()
        async with AsyncExitStack() as stack:
            volume = await asyncio.to_thread(Volume.open, settings.root)
            stack.callback(volume.close)

            losses = Losses()

            def on_finding(block: BlockId, finding: Finding) -> None:
                metrics.findings[finding].inc()
                if finding is not Finding.UNEXPECTED:
                    losses.add(block)
                elif self._registration is not None:
                    self._registration.report_soon()

            store = await asyncio.to_thread(BlockStore, volume.root, settings.reserved_bytes, on_finding=on_finding)
            stack.callback(store.close)
            sync = VolumeSync(store, volume.root, is_told=losses.is_told)
            stack.callback(sync.close)
            # Ended before the volume is unlocked: whatever still writes is waited for.
            pool = stack.enter_context(ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk"))
            usage = store.usage()
            log.info(event("volume open", root=volume.root, node=volume.node_id, blocks=usage.blocks, used=usage.used))
            metrics.watch(store)
            commits = CommitQueue(store)
            stack.push_async_callback(commits.close)
            peers = await stack.enter_async_context(open_peer_session())
            replication = Replication(store, sync, pool, peers, settings.repair_bytes_per_s)
            await stack.enter_async_context(replication.running())
            namenode = NamenodeClient(peers, settings.namenode_url)
            metadata = await asyncio.to_thread(
                MetadataFiles, volume.root, store.require_space, on_bad=lambda _: metrics.bad_metadata.inc()
            )
            self._registration = Registration(
                namenode,
                volume,
                store,
                pool,
                replication,
                losses,
                settings.addresses,
                position=lambda: metadata.position.value,
                on_registered=lambda: metrics.registered.set(1),
            )
            stack.callback(self._forget_registration)
            scrubber = Scrubber(
                ScrubbedVolume(store, metadata, volume.root / "scrub.json"),
                settings.scrub_every_s,
                metrics,
                # What the namenode has been told one by one may have crossed with a change of its own.
                on_finished=self._registration.report_soon,
            )
            await stack.enter_async_context(scrubber.running())
            self._running = Services(
                node_id=volume.node_id,
                store=store,
                sync=sync,
                metadata=metadata,
                commits=commits,
                pool=pool,
                peers=peers,
                namenode=namenode,
                layouts=Layouts(namenode),
                metrics=metrics,
                body_timeout_s=settings.body_timeout_s,
                is_member=self._is_registered,
            )
            yield self._running

    def _forget_registration(self) -> None:
        self._registration = None
