"""The namenode put together from its parts."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from aiohttp import web

from dfslib.config import load_for
from dfslib.errors import Unavailable
from dfslib.namenode.app import make_app
from dfslib.namenode.blocks.compaction import Compaction
from dfslib.namenode.blocks.copies import wanted_copies
from dfslib.namenode.blocks.garbage import GarbageCollector
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.files.app import FileRoutes
from dfslib.namenode.files.once import KEEP_S, last_stamp
from dfslib.namenode.files.operations import Operations
from dfslib.namenode.files.pack import Packer
from dfslib.namenode.files.receive import Receiver
from dfslib.namenode.membership.app import ClusterRoutes
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.metrics import Metrics
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.create import make_root
from dfslib.namenode.repair.worker import Repair
from dfslib.namenode.status import ClusterStatus
from dfslib.runtime.clocks import Clocks
from dfslib.runtime.ids import BlockIds
from dfslib.runtime.logs import event
from dfslib.runtime.stamps import Stamps
from dfslib.runtime.tasks import Tasks, run_forever
from dfslib.transfer.peer_session import open_peer_session

log = logging.getLogger("dfs.namenode")

_COLLECT_EVERY_S: Final = 5
_COMPACT_EVERY_S: Final = 5
_REPAIR_EVERY_S: Final = 0.5


class NameNode:
    """`DFS_NODE_CLASS=name_node.NameNode`."""

    event_loop: ClassVar[str] = "uvloop"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> NameNode:
        """Raises ConfigError."""
        return cls(load_for("namenode", env))

    def app(self) -> web.Application:
        """Opens the metadata. Raises Unavailable where another namenode has it, OSError."""
        settings = self._settings
        engine = LmdbEngine(Path(settings["DFS_DB_PATH"]))
        cluster_id = asyncio.run(_open_cluster(engine))
        registry = Registry(settings["DFS_SUSPECT_AFTER"], settings["DFS_DEAD_AFTER"])
        registry.restore(engine.read(lambda txn: list(records.scan_nodes(txn))), time.monotonic())
        orders, in_flight, tasks = Orders(), InFlight(), Tasks()
        remembered = engine.read(lambda txn: last_stamp(txn, time.time_ns()))
        clocks = Clocks(time.time_ns, time.monotonic, Stamps(time.time_ns, time.monotonic, KEEP_S, remembered))
        collector = GarbageCollector(engine, orders, in_flight, clocks, settings["DFS_GARBAGE_DELAY"])
        writer = BlockWriter(
            registry,
            in_flight,
            collector,
            tasks,
            BlockIds(),
            time.monotonic,
            replication=settings["DFS_REPLICATION"],
            min_replicas=settings["DFS_MIN_REPLICAS"],
            stall_timeout_s=settings["DFS_STALL_TIMEOUT"],
        )
        default = settings["DFS_REPLICATION"]
        repair = Repair(engine, registry, orders, lambda txn, block: wanted_copies(txn, block, default), time.monotonic)
        writer.on_short = repair.changed
        status = ClusterStatus(engine, cluster_id, registry, writer.required, default, repair, time.monotonic)
        compaction = Compaction(engine, writer, status.urls)
        file_routes = FileRoutes(
            engine,
            Operations(engine, time.time_ns, clocks.stamps.now),
            Receiver(writer, Packer(writer, tasks)),
            writer,
            registry,
            time.monotonic,
            settings["DFS_BODY_TIMEOUT"],
        )
        cluster_routes = ClusterRoutes(
            engine, cluster_id, registry, orders, in_flight, status, repair, time.monotonic, time.time_ns
        )

        async def life(_: web.Application) -> AsyncIterator[None]:
            session = open_peer_session()
            writer.use(session)
            compaction.use(session)
            tasks.spawn(run_forever(collector.run_once, _COLLECT_EVERY_S, "garbage"), "garbage")
            tasks.spawn(run_forever(repair.run_once, _REPAIR_EVERY_S, "repair"), "repair")
            tasks.spawn(run_forever(compaction.run_once, _COMPACT_EVERY_S, "compaction"), "compaction")
            yield
            await tasks.close()
            await session.close()
            engine.close()

        return make_app([file_routes.routes(), cluster_routes.routes()], Metrics(status.cluster, status.df), life)


async def _open_cluster(engine: MetadataEngine) -> str:
    """The cluster's id; a store that is new gets one, and a root directory."""

    def commit(txn: Txn) -> records.ClusterRecord:
        found = records.get_cluster(txn)
        if found is None:
            now = time.time_ns()
            found = records.ClusterRecord(uuid.uuid4().hex, now)
            records.put_cluster(txn, found)
            make_root(txn, now)
            log.info(event("new cluster", id=found.cluster_id))
        return found

    record = await engine.transact(commit)
    if record.format > records.FORMAT:
        raise Unavailable(f"the metadata has format {record.format}, this version knows {records.FORMAT}")
    return record.cluster_id
