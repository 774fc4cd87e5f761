"""The namenode put together from its parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from aiohttp import web

from dfslib.config import load_for
from dfslib.model import NodeId
from dfslib.namenode.app import make_app
from dfslib.namenode.blocks.compaction import Compaction
from dfslib.namenode.blocks.copies import wanted_copies
from dfslib.namenode.blocks.deferral import Deferral
from dfslib.namenode.blocks.garbage import GarbageCollector
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.moving import Mover
from dfslib.namenode.blocks.unsynced import Unsynced
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.checkpoint.cluster import State
from dfslib.namenode.checkpoint.finding import Finder
from dfslib.namenode.checkpoint.hold import COUNT_EVERY_S
from dfslib.namenode.checkpoint.journal import Journal
from dfslib.namenode.checkpoint.keeper import Keeper
from dfslib.namenode.checkpoint.recent import FOLDER as RECENT
from dfslib.namenode.checkpoint.recent import Recent
from dfslib.namenode.checkpoint.shipper import Shipper
from dfslib.namenode.files.app import FileRoutes
from dfslib.namenode.files.once import KEEP_S, last_stamp
from dfslib.namenode.files.operations import Operations
from dfslib.namenode.files.pack import Packer
from dfslib.namenode.files.receive import Receiver
from dfslib.namenode.membership.app import ClusterRoutes
from dfslib.namenode.membership.deaths import Deaths
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.metrics import Metrics
from dfslib.namenode.namespace import records
from dfslib.namenode.repair.worker import Repair
from dfslib.namenode.sessions import operations as sessions_operations
from dfslib.namenode.sessions.app import SessionRoutes
from dfslib.namenode.sessions.changing import Changing
from dfslib.namenode.sessions.looking import Looking
from dfslib.namenode.sessions.table import Sessions
from dfslib.namenode.sessions.writing import Writing
from dfslib.namenode.status import ClusterStatus
from dfslib.namenode.upgrade.app import UpgradeRoutes
from dfslib.namenode.upgrade.finalize import Upgrade
from dfslib.namenode.verification.checking import Checker
from dfslib.namenode.verification.crashes import Crashes
from dfslib.namenode.verification.guard import COPIES, Guard
from dfslib.runtime.clocks import Clocks
from dfslib.runtime.ids import BlockIds
from dfslib.runtime.stamps import Stamps
from dfslib.runtime.tasks import Tasks, run_forever
from dfslib.transfer.peer_session import open_peer_session

_COLLECT_EVERY_S: Final = 2
_COMPACT_EVERY_S: Final = 2
_REPAIR_EVERY_S: Final = 0.5
_FIND_EVERY_S: Final = 1
_SESSIONS_EVERY_S: Final = 0.5
_DEATHS_EVERY_S: Final = 1
_DEFER_S: Final = 1
"""Small writes of a mount are brought to datanodes together so often."""
_SYNC_EVERY_S: Final = 3
"""What a mount closed is in the datanodes' memory for no longer than about this."""


class NameNode:
    """`DFS_NODE_CLASS=name_node.NameNode`."""

    event_loop: ClassVar[str] = "uvloop"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._keeper: Keeper

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> NameNode:
        """Raises ConfigError."""
        return cls(load_for("namenode", env))

    def app(self) -> web.Application:
        """Opens the metadata. Raises Unavailable where another namenode has it, OSError."""
        settings = self._settings
        folder: Path = settings["DFS_DB_PATH"]
        crashes = Crashes(folder)
        guard = Guard(
            folder,
            Checker(folder, lambda: engine.forget_dead_readers()),
            crashes.told(),
            lambda: engine.open(),
            time.time_ns,
            time.monotonic,
        )
        engine = LmdbEngine(
            folder, opened=False, on_damage=guard.met, on_failed=lambda reason: keeper.cannot_commit(reason)
        )
        registry = Registry(settings["DFS_SUSPECT_AFTER"], settings["DFS_DEAD_AFTER"])
        keeper = Keeper(engine, guard, registry, folder, time.monotonic, new_cluster=settings["DFS_NEW_CLUSTER"])
        journal = Journal(time.time_ns, Recent(folder / RECENT))
        engine.journal(journal.committed)
        shipper = Shipper(
            engine,
            registry,
            keeper.cluster,
            journal,
            guard.write_checkpoint,
            folder / COPIES,
            time.time_ns,
            time.monotonic,
        )
        self._keeper = keeper
        orders, in_flight, tasks = Orders(), InFlight(), Tasks()
        clocks = Clocks(time.time_ns, time.monotonic, Stamps(time.time_ns, time.monotonic, KEEP_S))

        def go_on() -> None:
            clocks.stamps.go_on_from(engine.read(lambda txn: last_stamp(txn, time.time_ns())))
            record = engine.read(records.get_cluster)
            assert record is not None
            journal.keep(record.cluster_id, record.epoch, record.level, engine.history)

        keeper.on_open = go_on
        asyncio.run(keeper.load())
        crashes.arm()
        collector = GarbageCollector(
            engine, orders, in_flight, clocks, settings["DFS_GARBAGE_DELAY"], is_held=lambda: keeper.hold.held
        )
        unsynced = Unsynced(engine, registry, in_flight, time.monotonic)
        new_id = BlockIds()
        writer = BlockWriter(
            registry,
            in_flight,
            collector,
            tasks,
            new_id,
            time.monotonic,
            replication=settings["DFS_REPLICATION"],
            min_replicas=settings["DFS_MIN_REPLICAS"],
            stall_timeout_s=settings["DFS_STALL_TIMEOUT"],
        )
        default = settings["DFS_REPLICATION"]
        repair = Repair(engine, registry, orders, lambda txn, block: wanted_copies(txn, block, default), time.monotonic)
        repair.is_held = lambda: keeper.hold.held
        writer.on_short = repair.changed
        status = ClusterStatus(engine, keeper, guard, registry, writer.required, default, repair, time.monotonic)
        mover = Mover(engine, writer)
        compaction = Compaction(engine, writer, mover, status.urls)
        deferral = Deferral(engine, writer, mover, new_id)
        finder = Finder(engine, status.urls, time.time_ns)
        packer = Packer(writer, tasks)
        sessions = Sessions(
            engine, writer, registry, settings["DFS_SESSION_GRACE"], time.monotonic, clocks.stamps.now
        )
        collector.is_open = sessions
        changing = Changing(engine, sessions.locks.check, time.time_ns, clocks.stamps.now)
        session_routes = SessionRoutes(
            sessions,
            sessions_operations.Operations(
                sessions,
                Looking(engine, status),
                changing,
                Writing(engine, changing, sessions, writer, packer, deferral, unsynced),
            ),
            keeper.cluster,
            tasks,
        )
        file_routes = FileRoutes(
            engine,
            Operations(engine, time.time_ns, clocks.stamps.now),
            Receiver(writer, packer),
            writer,
            registry,
            time.monotonic,
            settings["DFS_BODY_TIMEOUT"],
        )
        def joined(node: NodeId) -> None:
            shipper.joined(node)
            unsynced.joined(node)

        cluster_routes = ClusterRoutes(
            engine,
            keeper,
            finder,
            registry,
            orders,
            in_flight,
            status,
            repair,
            deferral,
            time.monotonic,
            time.time_ns,
            joined,
        )

        def spawn(run_once: Callable[[], Awaitable[object]], every_s: float, name: str) -> None:
            async def when_open() -> None:
                if keeper.cluster.state is State.OPEN:
                    await run_once()

            tasks.spawn(run_forever(when_open, every_s, name), name)

        async def life(_: web.Application) -> AsyncIterator[None]:
            session = open_peer_session()
            for part in (writer, compaction, keeper, shipper, finder, unsynced):
                part.use(session)
            tasks.spawn(keeper.run_until_open(), "opening")
            tasks.spawn(guard.watch(), "verification")
            spawn(collector.run_once, _COLLECT_EVERY_S, "garbage")
            spawn(repair.run_once, _REPAIR_EVERY_S, "repair")
            spawn(compaction.run_once, _COMPACT_EVERY_S, "compaction")
            spawn(deferral.run_once, _DEFER_S, "deferral")
            spawn(sessions.run_once, _SESSIONS_EVERY_S, "sessions")
            spawn(unsynced.run_once, _SYNC_EVERY_S, "sync")
            spawn(finder.run_once, _FIND_EVERY_S, "finding")
            spawn(Deaths(engine, registry, time.monotonic).run_once, _DEATHS_EVERY_S, "deaths")
            spawn(keeper.hold.run_once, COUNT_EVERY_S, "hold")
            spawn(shipper.run_once, settings["DFS_CHECKPOINT_EVERY"], "checkpoint")
            yield
            await tasks.close()
            await unsynced.close()
            await writer.close()
            await shipper.close()
            await keeper.close()
            await session.close()
            engine.close()
            crashes.disarm()

        upgrade = Upgrade(
            engine, keeper.cluster, registry, sessions, repair.held_back, tasks, time.monotonic
        )
        metrics = Metrics(status.cluster, status.df, status.metadata, shipper)
        tables = [file_routes.routes(), session_routes.routes(), cluster_routes.routes()]
        tables.append(UpgradeRoutes(upgrade).routes())
        app = make_app(tables, metrics, life, keeper.cluster)

        async def end_what_waits(_: web.Application) -> None:
            orders.stop_waiting()
            await sessions.close_connections()

        app.on_shutdown.append(end_what_waits)
        return app

    async def run_while_serving(self) -> None:
        """Raises StartAgain where the metadata turns out to be out of date, or damaged; InputOutput where its disk
        fails."""
        await self._keeper.wait_to_start_again()
