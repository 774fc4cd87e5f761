"""The life of the metadata as a whole: opened, begun, restored, or found to be out of date.

    the folder is checked (verification/) ─► the store has a cluster, or it is empty, or was set aside
    it has a cluster ─► waiting ─► (half of its datanodes agree, or an operator says so) ─► open
    it has none ─► waiting ─► (most of those that the newest copy names are there) ─► restoring ─► open
                      └─► (all of them are new) ──────────────► open
    waiting or open ─► (a datanode shows that it is out of date) ─► the process starts again ─► set aside ─► it has none
    open ─► (the store is damaged) ─► the process starts again ─► checked ─► set aside ─► it has none
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from dfslib.errors import DfsError, InputOutput, InvalidArgument, Unavailable
from dfslib.namenode.checkpoint.admission import Admission
from dfslib.namenode.checkpoint.cluster import Cluster, State
from dfslib.namenode.checkpoint.fetching import survey
from dfslib.namenode.checkpoint.format import FileName, name_of
from dfslib.namenode.checkpoint.hold import Hold
from dfslib.namenode.checkpoint.opening import HOW_TO_BEGIN, Joiner, NewCluster, Opening, Restore, Survey, Wait
from dfslib.namenode.checkpoint.quorum import Outdated, Undecided, Verdict
from dfslib.namenode.checkpoint.recovery import recover
from dfslib.namenode.checkpoint.restoring import begin_epoch, clear, mark, set_aside, unfinished
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.create import make_root
from dfslib.namenode.namespace.records import RestoringRecord
from dfslib.namenode.upgrade.level import too_late
from dfslib.namenode.verification.checking import CheckFailed
from dfslib.namenode.verification.guard import Remnant
from dfslib.runtime.logs import event
from dfslib.runtime.serving import StartAgain
from dfslib.transfer.peer_session import PeerSession
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL

log = logging.getLogger("dfs.checkpoint")

_DECIDE_EVERY_S: Final = 0.2
_AGAIN_S: Final = 10.0
"""Until a restore that failed is tried anew; a datanode that comes meanwhile may have what was missing."""


class Gate(Protocol):
    """What stands before the store (verification/guard.py)."""

    @property
    def remnant(self) -> Remnant | None:
        """What is left of a store that is gone, or was set aside; None where there is a store, or never was one."""
        ...

    async def admit(self) -> bool:
        """Open the store, if it may be opened now; else it is opened by `check_first`. Raises OSError, CheckFailed."""
        ...

    async def check_first(self) -> None:
        """Raises OSError, CheckFailed."""
        ...

    def opened(self, cluster_id: str) -> None:
        """From now on something may be acknowledged, by this cluster. Raises OSError."""
        ...

    def aside(self, target: Path) -> Mapping[FileName, Path]:
        """Files of metadata that lie here; some are made in `target`. For a thread. Raises OSError."""
        ...

    async def damaged(self) -> str:
        """Return once the open store is known to be damaged; why."""
        ...


class Keeper:
    def __init__(
        self,
        engine: MetadataEngine,
        gate: Gate,
        registry: Registry,
        folder: Path,
        monotonic: Callable[[], float],
        *,
        new_cluster: bool,
    ) -> None:
        """`folder` is the metadata's; what is set aside and downloaded goes there, too. `new_cluster`: an empty
        store begins a cluster at once."""
        self.cluster = Cluster()
        self.hold = Hold(engine, monotonic)
        self.on_open: Callable[[], None] = lambda: None
        """Called when the metadata is there, before anything is served."""
        self._engine = engine
        self._gate = gate
        self._registry = registry
        self._folder = folder
        self._monotonic = monotonic
        self._opening = Opening(new_cluster=new_cluster)
        self._admission = Admission(engine, self.cluster, monotonic, registry.dead_after_s)
        self._reason = ""
        """Why the last attempt to restore failed; told once."""
        self._outdated = asyncio.Event()
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fatal: BaseException | None = None
        """What the process is to end with."""
        self._busy = asyncio.Lock()
        """Held while a restore runs, so that an operator's and our own do not meet."""
        self._session: PeerSession | None = None

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session
        self._admission.use(session)

    async def close(self) -> None:
        await self._admission.close()

    async def load(self) -> None:
        """Open the store, if it may be opened at once and has a cluster; empty it, if it is not whole. Raises
        Unavailable for a store of a later level, OSError where what is out of date cannot be set aside."""
        try:
            if await self._gate.admit():
                await self._load()
            else:
                self.cluster.state = State.CHECKING
        except CheckFailed as error:
            raise InputOutput(f"the metadata cannot be checked, and so is not opened: {error}") from error

    async def _load(self) -> None:
        if self._gate.remnant is not None:
            await mark(self._engine, self._gate.remnant.cluster_id)
        unwhole = self._engine.read(unfinished)
        if unwhole is not None:
            await self._empty(unwhole)
        record = self._engine.read(records.get_cluster)
        if record is None:
            await self._decide()
            return
        if record.level > NEWEST_LEVEL:
            raise Unavailable(too_late("the metadata", record.level))
        self.cluster.known(record.cluster_id, record.epoch, record.level)
        self._know_datanodes()
        self._admission.begin()
        self._follow(self._admission.decide())

    async def _empty(self, unwhole: RestoringRecord) -> None:
        """Make a store that is not whole ready to be filled. Ends the same wherever it is broken off."""
        if unwhole.set_aside:
            path = self._folder / f"outdated-{time.time_ns()}.checkpoint"
            was = await set_aside(self._engine, path)
            await mark(self._engine, unwhole.cluster_id)
            log.critical(event("metadata that is out of date set aside", path=path, was=was and name_of(was)))
        else:
            log.warning(event("the metadata is not whole", action="it is restored"))
        await clear(self._engine)
        self._opening = Opening(new_cluster=False, only=unwhole.cluster_id)

    async def admit(self, joiner: Joiner) -> None:
        """Whether this datanode can be spoken to now. Raises Unavailable: it is to come again; InvalidArgument; what
        the store fails with."""
        if self.cluster.state is State.OPEN or self._admission.is_waiting:
            if joiner.cluster_id == self.cluster.id and not self._outdated.is_set():
                self._compare(joiner)
                if not self._outdated.is_set():
                    self._follow(await self._admission.judge(joiner))
                if self.cluster.state is State.OPEN:
                    await self._raise_level(joiner)
        else:
            self._opening.joined(joiner, self._monotonic())
        self.cluster.require_open()

    def agrees(self, position: str) -> bool:
        """Whether a datanode that has joined was brought nothing by another namenode since. Raises InvalidArgument."""
        return self._admission.agrees(position)

    def _follow(self, verdict: Verdict) -> None:
        if self._outdated.is_set():
            return
        if isinstance(verdict, Outdated):
            self.outdated(verdict.detail)
        elif isinstance(verdict, Undecided):
            self._wait(verdict.detail)
        elif self.cluster.state is not State.OPEN:
            self._open()

    def _compare(self, joiner: Joiner) -> None:
        """Find out whether our metadata is older than what a datanode of the cluster has met. Raises Unavailable where
        that is of a level that this build does not know."""
        level = self.cluster.level.current
        if joiner.level > NEWEST_LEVEL:
            raise Unavailable(too_late(f"the cluster of datanode {joiner.node}", joiner.level))
        if joiner.epoch > self.cluster.epoch:
            self.outdated(
                f"this metadata is of epoch {self.cluster.epoch}, and datanode {joiner.node} has met epoch "
                f"{joiner.epoch}: it was restored elsewhere meanwhile"
            )
        elif joiner.level > level and joiner.epoch == self.cluster.epoch:
            self.outdated(
                f"this metadata is of level {level}, and datanode {joiner.node} has met level {joiner.level}: it is "
                "from before an upgrade was finalized"
            )

    async def _raise_level(self, joiner: Joiner) -> None:
        """Make good what a restore has lost: its copy was of before an upgrade's end, and this datanode was away."""
        if joiner.level > self.cluster.level.current and joiner.epoch < self.cluster.epoch:
            await self._engine.transact(lambda txn: records.raise_level(txn, joiner.level))
            self.cluster.level.opened(self._engine.read(records.get_level))
            log.warning(event("level raised", level=joiner.level, reason=f"datanode {joiner.node} has met it"))

    @property
    def detail(self) -> str:
        """What it waits for, or whom it refuses, for people."""
        return self.cluster.detail or self._admission.refusals

    def outdated(self, detail: str) -> None:
        """This metadata must not be served any more."""
        self.cluster.state, self.cluster.detail = State.WAITING, detail
        self._outdated.set()

    async def open_by_force(self) -> None:
        """Serve the metadata that is here, whatever datanodes have that it lacks: a new epoch begins with it, to which
        all of that is older. Does nothing where it is served already and no datanode is refused.

        Raises InvalidArgument where there is none, Unavailable where it is being given up.
        """
        async with self._busy:
            if self._outdated.is_set():
                self.cluster.require_open()
            was_open = self.cluster.state is State.OPEN
            if was_open and not self._admission.refusals:
                return
            if not was_open and not self._admission.is_waiting:
                raise InvalidArgument(f"there is no metadata here to be opened: {HOW_TO_BEGIN}")
            until_ns = self._engine.history.head.time_ns or time.time_ns()
            await self._engine.transact(partial(begin_epoch, self.cluster.epoch + 1, OLDEST_LEVEL, until_ns))
            if self._outdated.is_set():
                self.cluster.require_open()
            if was_open:
                self._adopt()
            else:
                self._open()
        log.critical(event("metadata opened by force", epoch=self.cluster.epoch, action="a new epoch begins"))

    async def run_until_open(self) -> None:
        """Decide what an empty store becomes, and make it that."""
        while True:
            pause_s = await self._decide_once()
            if pause_s is None:
                return
            await asyncio.sleep(pause_s)

    async def _decide_once(self) -> float | None:
        """How long to pause before it is decided again; None where there is nothing to decide. It is looked at when
        nobody else is at it: an operator's restore may have opened the store while this waited."""
        async with self._busy:
            if self.cluster.state is State.OPEN or self._outdated.is_set():
                return None
            if self.cluster.state is State.CHECKING:
                return await self._check_first()
            try:
                await self._decide()
            except (DfsError, OSError) as error:
                self._failed(error)
                return _AGAIN_S
            return _DECIDE_EVERY_S

    def _failed(self, error: Exception) -> None:
        self.cluster.state = State.WAITING
        self.cluster.detail = f"the restore failed, and is tried again every {_AGAIN_S:g} s: {error}"
        if str(error) != self._reason:
            self._reason = str(error)
            log.critical(event("restore failed", reason=error, next_attempt_s=_AGAIN_S))

    async def _check_first(self) -> float:
        """How long to pause before what comes next. A store that must not be opened after all ends the process, as at
        any other start."""
        try:
            await self._gate.check_first()
        except (CheckFailed, OSError) as error:
            self.cluster.detail = f"the check failed, and is tried again every {_AGAIN_S:g} s: {error}"
            log.critical(event("the metadata cannot be checked", reason=error, next_attempt_s=_AGAIN_S))
            return _AGAIN_S
        self.cluster.state = State.WAITING
        try:
            await self._load()
        except (DfsError, OSError) as error:
            self._fatal = error
            self._outdated.set()
        return 0.0

    async def restore(self, source_url: str | None) -> None:
        """Restore now, from one datanode's copies or from those of all that have come.

        Raises InvalidArgument where there is metadata, no datanode that was named has come, or their cluster is of a
        later level than this build knows; Unavailable where none has a copy that can be used, and while the metadata
        that is here is checked.
        """
        if self.cluster.state is State.CHECKING:
            self.cluster.require_open()
        async with self._busy:
            if self.cluster.state is State.OPEN or self._admission.is_waiting:
                raise InvalidArgument(
                    "this namenode has metadata; it is restored into an empty one only: move its folder away first"
                )
            sources = [
                joiner
                for joiner in self._opening.members
                if source_url in (None, joiner.url.rstrip("/"))
            ]
            if not sources:
                raise InvalidArgument(f"no datanode of a cluster has come{f' from {source_url}' if source_url else ''}")
            if len({joiner.cluster_id for joiner in sources}) > 1:
                raise InvalidArgument("datanodes of several clusters have come: name one of them with 'from'")
            if (level := max(joiner.level for joiner in sources)) > NEWEST_LEVEL:
                raise InvalidArgument(too_late(f"cluster {sources[0].cluster_id}", level))
            await self._restore(Restore(sources))

    def cannot_commit(self, reason: str) -> None:
        """The store's disk has failed: the process is to end, and who comes next finds out what the disk has. From any
        thread."""
        self._fatal = InputOutput(
            f"the metadata cannot be written: {reason}. What was acknowledged is on disk; look at the disk, and start "
            "the namenode again",
            str(self._folder),
        )
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)

    async def wait_to_start_again(self) -> None:
        """Return never; where this metadata must not be served any more, raise StartAgain, and what kept it from being
        opened, where it was checked first. Raises InputOutput where nothing can be committed any more.

        What the process has in memory is out of date as well. The store is set aside and filled anew at the start,
        so that all that was acknowledged until the end is in the file.
        """
        self._loop = asyncio.get_running_loop()
        if self._fatal is not None:
            raise self._fatal
        failed = asyncio.create_task(self._ended.wait(), name="failed")
        outdated = asyncio.create_task(self._outdated.wait(), name="outdated")
        damaged = asyncio.create_task(self._gate.damaged(), name="damaged")
        try:
            await asyncio.wait({failed, outdated, damaged}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (failed, outdated, damaged):
                task.cancel()
        if self._fatal is not None:
            raise self._fatal
        if damaged.done():
            self.cluster.state = State.WAITING
            self.cluster.detail = f"the metadata is damaged, and is restored: {damaged.result()}"
            raise StartAgain(self.cluster.detail)
        log.critical(event("metadata is out of date", reason=self.cluster.detail, action="the namenode starts again"))
        await mark(self._engine, self.cluster.id, set_aside=True)
        raise StartAgain(self.cluster.detail)

    def _wait(self, detail: str) -> None:
        if detail != self.cluster.detail:
            log.info(event("waiting for datanodes", reason=detail))
        self.cluster.state, self.cluster.detail = State.WAITING, detail

    async def _decide(self) -> None:
        if self._admission.is_waiting:
            self._follow(self._admission.decide())
            return
        decision = self._opening.decide(self._monotonic())
        if isinstance(decision, Wait):
            self._wait(decision.detail)
        elif isinstance(decision, NewCluster):
            await self._engine.transact(_begin)
            self._open()
            log.info(event("new cluster", id=self.cluster.id))
        elif isinstance(decision, Survey):
            assert self._session is not None
            self._opening.surveyed(decision.sources, await survey(self._session, decision.sources))
        else:
            await self._restore(decision)

    async def _restore(self, plan: Restore) -> None:
        assert self._session is not None
        cluster, started = self.cluster, self._monotonic()
        cluster.state = State.RESTORING
        ours = [joiner for joiner in self._opening.members if joiner.cluster_id == plan.sources[0].cluster_id]
        folder = self._folder / "restore"

        def progress(detail: str) -> None:
            cluster.detail = detail

        try:
            fetched = await recover(
                self._engine, self._session, plan.sources, ours, folder, self._gate.aside, progress
            )
        except BaseException:
            cluster.state, cluster.detail = State.WAITING, "the restore was broken off"
            raise
        self._open()
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((cluster.restored_until_ns or 0) / 1e9))
        seconds = round(self._monotonic() - started, 1)
        log.warning(
            event("metadata restored", until=until, epoch=cluster.epoch, files=len(fetched.paths), seconds=seconds)
        )

    def _open(self) -> None:
        record = self._engine.read(records.get_cluster)
        assert record is not None
        self._gate.opened(record.cluster_id)
        self.on_open()
        self._know_datanodes()  # from now on there is time for them to come back
        self._adopt()

    def _know_datanodes(self) -> None:
        self._registry.restore(
            self._engine.read(lambda txn: list(records.scan_nodes(txn))),
            self._monotonic(),
            self._engine.read(lambda txn: list(records.scan_admitted(txn))),
        )

    def _adopt(self) -> None:
        """Serve what the store has, and in the epoch that it says."""
        record = self._engine.read(records.get_cluster)
        assert record is not None
        restored = self._engine.read(records.get_restored)
        self.cluster.opened(record.cluster_id, record.epoch, record.level, restored.until_ns if restored else None)
        self.hold.load()
        self._admission.opened()


def _begin(txn: Txn) -> None:
    now = time.time_ns()
    records.put_cluster(txn, records.ClusterRecord(uuid.uuid4().hex, now, NEWEST_LEVEL))
    make_root(txn, now)
