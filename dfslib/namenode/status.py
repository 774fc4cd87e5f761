"""The cluster as operators see it: nodes, space, health. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from dfslib.model import REPLICATION_ALL, ROOT, InodeId, NodeId, format_block
from dfslib.namenode.blocks.copies import wanted_copies
from dfslib.namenode.checkpoint.cluster import State
from dfslib.namenode.checkpoint.keeper import Keeper
from dfslib.namenode.membership.registry import NodeState, Registry
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.records import Totals
from dfslib.namenode.repair.worker import Repair
from dfslib.namenode.verification.guard import Guard
from dfslib.wire import routes
from dfslib.wire.attributes import format_replication
from dfslib.wire.features import NEWEST_LEVEL, VERSION
from dfslib.wire.messages import ClusterBody, DfBody, FsckBody, MetadataBody, NodeBody, ProblemBody, RepairBody

_PROBLEMS_SHOWN: Final = 1000
_GARBAGE_COUNTED: Final = 100_000
"""Counted on every request for the status; more than this is shown as this."""


class ClusterStatus:
    def __init__(
        self,
        engine: MetadataEngine,
        keeper: Keeper,
        guard: Guard,
        registry: Registry,
        required: Callable[[int], int],
        replication: int,
        repair: Repair,
        monotonic: Callable[[], float],
    ) -> None:
        """`required` gives the copies that a write with so many copies needs."""
        self._engine = engine
        self._keeper = keeper
        self._guard = guard
        self._registry = registry
        self._required = required
        self._replication = replication
        self._repair = repair
        self._monotonic = monotonic
        self._started_s = monotonic()

    def cluster(self) -> ClusterBody:
        now = self._monotonic()
        garbage = self._engine.read(_count_garbage) if self._is_there else 0
        nodes = [
            NodeBody(
                id=node.id,
                state=self._registry.state(node, now).value,
                url=node.url,
                public_url=node.public_url,
                capacity=node.capacity,
                used=node.used,
                free=node.free,
                blocks=node.blocks,
                last_seen=node.last_seen_ns / 1e9,
                writable=self._registry.is_writable(node, now),
                slow=self._registry.is_slow(node, now),
                to_move=self._repair.held_back(node.id) if node.drained else None,
            )
            for node in self._registry.all()
        ]
        return ClusterBody(
            cluster_id=self._keeper.cluster.id,
            version=VERSION,
            protocol=routes.PROTOCOL_VERSION,
            replication=format_replication(self._replication),
            min_replicas=self._required(self._replication),
            uptime_s=round(now - self._started_s, 3),
            garbage_blocks=garbage,
            repair=RepairBody(*self._repair.progress),
            metadata=self.metadata(),
            nodes=nodes,
            level=self._keeper.cluster.level.current,
            newest_level=NEWEST_LEVEL,
        )

    @property
    def _is_there(self) -> bool:
        """There is a store that can be read, with or without metadata in it."""
        return self._keeper.cluster.state is not State.CHECKING

    def metadata(self) -> MetadataBody:
        """Whether there is metadata here, whether it is right, and its copies."""
        cluster, guard = self._keeper.cluster, self._guard
        aside = guard.marker.set_aside
        return MetadataBody(
            state=cluster.state.value,
            detail=self._keeper.detail or guard.detail,
            copied_until=_seconds(cluster.copied_until_ns),
            restored_until=_seconds(cluster.restored_until_ns),
            held=self._keeper.hold.held,
            checked=_seconds(guard.marker.checked_ns or None),
            checking=guard.is_checking,
            damage=f"{aside.reason}; it was set aside in {aside.folder}" if aside is not None else "",
        )

    def df(self) -> DfBody:
        alive = self._registry.alive(self._monotonic())
        totals = self._engine.read(records.get_totals) if self._is_there else Totals()
        free = sorted((node.free for node in alive), reverse=True)
        return DfBody(
            capacity=sum(node.capacity for node in alive),
            used=sum(node.used for node in alive),
            free=sum(free),
            available=_available(free, self._replication),
            bytes=totals.bytes,
            files=totals.files,
            directories=totals.directories,
            nodes=len(alive),
        )

    def urls(self, nodes: Sequence[NodeId]) -> list[str]:
        """Where those of the datanodes that are there can be asked by peers."""
        return [node.url for node in self._registry.readable(self._monotonic()) if node.id in nodes]

    def fsck(self) -> FsckBody:
        """Check every invariant of the metadata and every block's copies. Not for the event loop's thread."""
        return self._engine.read(self._fsck)

    def _fsck(self, txn: ReadTxn) -> FsckBody:
        lost: list[ProblemBody] = []
        others: list[ProblemBody] = []
        count = blocks = 0
        for found in self._missing(txn):
            blocks += 1
            count += len(found)
            for problem in found:
                kept = others if problem.copies else lost
                if len(kept) < _PROBLEMS_SHOWN:
                    kept.append(problem)
        for damage in check(txn):
            count += 1
            if len(others) < _PROBLEMS_SHOWN:
                where = f"inode {damage.ino}" if damage.ino is not None else ""
                block = "" if damage.block is None else format_block(damage.block)
                others.append(ProblemBody("metadata", where, damage.detail, block=block))
        totals = records.get_totals(txn)
        problems = _named(txn, (lost + others)[:_PROBLEMS_SHOWN])
        return FsckBody(count == 0, totals.files + totals.directories, blocks, count, problems)

    def _missing(self, txn: ReadTxn) -> Iterator[list[ProblemBody]]:
        """For each block that is in use, what is wrong with its copies: where all are lost, for each of its files."""
        now = self._monotonic()
        there = {node.id for node in self._registry.readable(now)}
        known = [node for node in self._registry.all() if self._registry.state(node, now) is not NodeState.DEAD]
        for block, record in records.scan_blocks(txn):
            if not record.live or record.deferred:
                continue
            copies = sum(1 for node in record.nodes if node in there)
            wanted = wanted_copies(txn, block, self._replication)
            if wanted == REPLICATION_ALL:
                wanted = max(1, len(known))
            if copies >= wanted:
                yield []
                continue
            users = list(dict.fromkeys(str(ino) for ino, _ in records.scan_references(txn, block)))
            if copies:
                kind, detail = "missing copies", f"{copies} of {wanted} copies are on live datanodes"
                if len(users) > 1:
                    detail += f"; {len(users) - 1} more files use the block"
                users = users[:1]
            elif record.nodes:
                away = ", ".join(node[:8] for node in record.nodes)
                kind, detail = "lost", f"every copy is on a datanode that is away: {away}"
            else:
                kind, detail = "lost", "no datanode has a good copy; damaged ones are kept in their quarantine"
            yield [ProblemBody(kind, ino, detail, format_block(block), copies, wanted) for ino in users or [""]]


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else time_ns / 1e9


def _count_garbage(txn: ReadTxn) -> int:
    return sum(1 for _ in islice(records.scan_state(txn, keys.GARBAGE), _GARBAGE_COUNTED))


def _available(free: list[int], replication: int) -> int:
    """Bytes of files that still fit; an estimate where copies go to some of the datanodes."""
    if not free:
        return 0
    copies = len(free) if replication == REPLICATION_ALL else min(replication, len(free))
    return min(free) if copies == len(free) else sum(free) // copies


def _named(txn: ReadTxn, problems: list[ProblemBody]) -> list[ProblemBody]:
    """The problems with paths in the place of inode numbers; one pass over all entries finds the names."""
    wanted = {InodeId(int(problem.path)) for problem in problems if problem.path.isdigit()}
    if not wanted:
        return problems
    paths: dict[str, str] = {}
    for parent, name, dentry in records.scan_all_dentries(txn):
        if dentry.ino in wanted:
            paths[str(dentry.ino)] = _path(txn, parent, name)
    return [
        ProblemBody(
            problem.kind,
            paths.get(problem.path, problem.path),
            problem.detail,
            problem.block,
            problem.copies,
            problem.wanted,
        )
        for problem in problems
    ]


def _path(txn: ReadTxn, parent: InodeId, name: bytes) -> str:
    parts = [name]
    while parent != ROOT:
        above = records.get_directory(txn, parent).parent
        found = next((entry for entry, dentry in records.scan_dentries(txn, above) if dentry.ino == parent), None)
        if found is None:
            break
        parts.append(found)
        parent = above
    return "/" + b"/".join(reversed(parts)).decode("utf-8", "replace")
