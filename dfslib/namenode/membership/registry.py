"""Who is in the cluster and in which state. A state machine without I/O: what is heard goes in, with the
time on a monotonic clock in seconds; states are a function of that."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from dfslib.errors import Fenced, UnknownNode
from dfslib.model import NodeId
from dfslib.namenode.membership.incarnations import GONE_S, Admitted, Presence
from dfslib.namenode.namespace.records import AdmittedRecord, NodeRecord
from dfslib.wire.messages import HeartbeatRequest, JoinRequest

_SLOW_MIN_S: Final = 10.0
_SLOW_MAX_S: Final = 320.0
_BEAT_S: Final = 1.0
"""Heartbeats come about so far apart; a silence counts as no more than one."""
_SETTLED_S: Final = 5.0
"""A datanode that is heard of for so long has done, or dropped, what it was sent before."""
_REPORT_APART_S: Final = 15.0
_REPORT_SHARE: Final = 20
"""Between two reports lie this many times the time that one takes."""


class NodeState(enum.StrEnum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DRAINING = "draining"
    DEAD = "dead"


@dataclass
class Datanode:
    """What is known of one datanode. Sizes in bytes; `free` leaves out what it reserves."""

    id: NodeId
    url: str
    public_url: str
    capacity: int = 0
    used: int = 0
    free: int = 0
    blocks: int = 0
    last_seen_ns: int = 0
    heard_s: float = float("-inf")
    reported: bool = False
    """Has told all its blocks since it joined; before that it takes no new ones."""
    present: bool = False
    """Has joined since this namenode started."""
    leaving: bool = False
    ready: bool = False
    """Since its process started, the cluster has been whole with it."""
    drained: bool = False
    """An operator wants to take it away: its copies do not count, and nothing new goes there."""
    dead: bool = False
    """Written in the store as dead (deaths.py)."""
    full: bool = False
    """Refused a write for want of space; holds until a heartbeat."""
    slow_until_s: float = float("-inf")
    """It kept a write waiting; until then writes avoid it."""
    slow_for_s: float = 0.0
    """How long it was avoided the last time; doubles as long as it stays slow."""
    lost: bool = False
    """Its connection broke, and nothing was heard since."""
    unsure: bool = False
    """A write to it was given up: it may have stored the block all the same, later. Its next report tells."""
    unsure_for_s: float = 0.0
    """How long it has been heard of regularly since."""
    report_began_s: float = float("-inf")
    report_took_s: float = 0.0
    beat_s: float = float("-inf")
    """When the last heartbeat came; `heard_s` also counts that one was being held."""
    version: str = ""
    features: frozenset[str] = frozenset()
    """What it told when it joined (wire/features.py)."""
    answered_s: float = float("-inf")
    """When it was answered last: what it tells next it has looked up since."""
    beat: int = 0
    """Counts what was heard, to tell a connection that broke from one that came after it."""
    incarnation: str = ""
    """Of the process that joined; empty for one of a release that has none."""
    joins: int = 0
    """Counts the processes that joined, to tell what one acknowledged from what its successor has."""

    @property
    def has_ended(self) -> bool:
        """Whether its process was seen to end, and was not heard of since."""
        return self.lost or self.leaving

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or self.url

    def record(self) -> NodeRecord:
        return NodeRecord(
            self.id,
            self.url,
            self.public_url,
            self.capacity,
            self.used,
            self.blocks,
            self.last_seen_ns,
            self.drained,
            self.dead,
        )


class Registry:
    """All datanodes that ever joined. Changed on the event loop alone; whoever asks in a thread gets a list of then."""

    def __init__(self, suspect_after_s: float, dead_after_s: float) -> None:
        self._suspect_after_s = suspect_after_s
        self.dead_after_s: Final = dead_after_s
        self._nodes: dict[NodeId, Datanode] = {}
        self._admitted: dict[NodeId, AdmittedRecord] = {}

    def restore(
        self, records: Iterable[NodeRecord], now_s: float, admitted: Iterable[AdmittedRecord] = ()
    ) -> None:
        """The datanodes known from before a restart: suspect, so that they have time to come back."""
        self._admitted = {record.node_id: record for record in admitted}
        for record in records:
            self._nodes[record.node_id] = Datanode(
                record.node_id,
                record.url,
                record.public_url,
                capacity=record.capacity,
                used=record.used,
                blocks=record.blocks,
                last_seen_ns=record.last_seen_ns,
                heard_s=now_s,
                lost=True,
                drained=record.drained,
                dead=record.dead,
            )

    def join(self, request: JoinRequest, url: str, now_s: float, now_ns: int) -> Datanode:
        """A datanode starts, or comes back. It is suspect until it has reported its blocks."""
        before = self._nodes.get(NodeId(request.node_id))
        node = Datanode(
            NodeId(request.node_id),
            url,
            request.public_url or url,
            capacity=request.capacity,
            used=request.used,
            free=request.free,
            blocks=request.blocks,
            last_seen_ns=now_ns,
            heard_s=now_s,
            present=True,
            drained=before.drained if before else False,
            version=request.version,
            features=frozenset(request.features),
            beat=before.beat + 1 if before else 1,
            incarnation=request.incarnation,
            joins=_count_joins(before, request),
        )
        self._nodes[node.id] = node
        return node

    def joined(self, node_id: str, incarnation: str) -> Datanode:
        """A datanode that has joined since this process started. Raises UnknownNode, or Fenced where another
        incarnation of it has."""
        node = self._nodes.get(NodeId(node_id))
        if node is None or not node.present:
            raise UnknownNode(f"datanode {node_id} has not joined")
        if node.incarnation != incarnation:
            raise Fenced(
                f"datanode {node_id} has been started anew at {node.url}, with this volume or a copy of it: this "
                "process is none of the cluster any more"
            )
        return node

    def admitted(self, node_id: str, now_s: float) -> Admitted | None:
        """The process of a datanode that was admitted last; None for a datanode that is new."""
        node = self._nodes.get(NodeId(node_id))
        if node is None:
            return None
        record = self._admitted.get(node.id, AdmittedRecord(node.id))
        return Admitted(record, node.incarnation, self._presence(node, now_s), node.url)

    def remember(self, record: AdmittedRecord) -> None:
        """Who was admitted, and who was not. To be called in the step that has it written down."""
        self._admitted[record.node_id] = record

    def _presence(self, node: Datanode, now_s: float) -> Presence:
        silent_s = now_s - node.heard_s
        if silent_s >= self.dead_after_s or (node.present and node.has_ended and silent_s >= GONE_S):
            return Presence.GONE
        if not node.present or node.has_ended or silent_s >= self._suspect_after_s:
            return Presence.UNSURE
        return Presence.HERE

    def heartbeat(self, request: HeartbeatRequest, now_s: float, now_ns: int) -> Datanode:
        """Raises UnknownNode where it must join, or join and report, first."""
        node = self.joined(request.node_id, request.incarnation)
        if not node.reported:
            raise UnknownNode(f"datanode {node.id} has not reported its blocks")
        node.capacity, node.used, node.free, node.blocks = (
            request.capacity,
            request.used,
            request.free,
            request.blocks,
        )
        node.leaving, node.ready = request.leaving, request.ready
        node.full = False
        if node.unsure:
            node.unsure_for_s += min(_BEAT_S, now_s - node.beat_s)
        node.beat_s = now_s
        node.last_seen_ns, node.heard_s = now_ns, now_s
        node.lost = False
        node.beat += 1
        return node

    def lost(self, node_id: NodeId, beat: int) -> bool:
        """The connection of the heartbeat counted `beat` broke: suspect at once, unless it was heard since."""
        node = self._nodes.get(node_id)
        if node is None or node.beat != beat:
            return False
        node.lost = True
        return True

    def gave_up(self, node_id: NodeId) -> None:
        """A write to it was given up, and nobody knows what it did with what it was sent."""
        if node := self._nodes.get(node_id):
            node.unsure, node.unsure_for_s = True, 0.0

    def wants_report(self, node: Datanode, now_s: float) -> bool:
        """Whether to have it report its blocks again: what it was given up for is over by now, and it has not
        spent much of its time on reports. Says so once."""
        apart_s = max(_REPORT_APART_S, _REPORT_SHARE * node.report_took_s)
        if not node.unsure or node.unsure_for_s < _SETTLED_S or now_s - node.report_began_s < apart_s:
            return False
        node.unsure = False
        return True

    def report(self, node: Datanode, now_s: float, *, first: bool, last: bool) -> None:
        """A page of its report has come."""
        node.heard_s = now_s
        if first:
            node.report_began_s = now_s
        if last:
            node.report_took_s = now_s - node.report_began_s
            node.reported = True

    def refused_for_space(self, node_id: NodeId) -> None:
        if node := self._nodes.get(node_id):
            node.full = True

    def slowed(self, node_id: NodeId, now_s: float) -> None:
        """It kept a write waiting: avoid it for a while, longer each time it does so again."""
        if node := self._nodes.get(node_id):
            lately = now_s < node.slow_until_s + 2 * node.slow_for_s
            node.slow_for_s = min(_SLOW_MAX_S, 2 * node.slow_for_s) if lately else _SLOW_MIN_S
            node.slow_until_s = now_s + node.slow_for_s

    def drain(self, node_id: NodeId, drained: bool) -> Datanode:
        """Raises UnknownNode."""
        node = self._nodes.get(node_id)
        if node is None:
            raise UnknownNode(f"there is no datanode {node_id}")
        node.drained = drained
        return node

    def forget(self, node_id: NodeId) -> None:
        self._nodes.pop(node_id, None)
        self._admitted.pop(node_id, None)

    def dismiss(self, node_id: NodeId) -> None:
        """It has to join anew before anything it says counts."""
        if node := self._nodes.get(node_id):
            node.present, node.lost = False, True

    def state(self, node: Datanode, now_s: float) -> NodeState:
        silent_s = now_s - node.heard_s
        if silent_s >= self.dead_after_s:
            return NodeState.DEAD
        if node.lost or silent_s >= self._suspect_after_s or not node.reported:
            return NodeState.SUSPECT
        return NodeState.DRAINING if node.leaving or node.drained else NodeState.ALIVE

    def is_writable(self, node: Datanode, now_s: float) -> bool:
        """Whether new blocks may go there: alive, and with space."""
        return self.state(node, now_s) is NodeState.ALIVE and node.free > 0 and not node.full

    def is_slow(self, node: Datanode, now_s: float) -> bool:
        return now_s < node.slow_until_s

    def all(self) -> list[Datanode]:
        return sorted(self._nodes.values(), key=lambda node: node.url)

    def get(self, node_id: NodeId) -> Datanode | None:
        return self._nodes.get(node_id)

    def alive(self, now_s: float) -> list[Datanode]:
        """Those to which reads and writes may go."""
        return [node for node in self.all() if self.state(node, now_s) is NodeState.ALIVE]

    def readable(self, now_s: float) -> list[Datanode]:
        """Those that blocks can be fetched from: alive, or drained and still there."""
        return [
            node
            for node in self.all()
            if self.state(node, now_s) in (NodeState.ALIVE, NodeState.DRAINING) and not node.leaving
        ]


def _count_joins(before: Datanode | None, request: JoinRequest) -> int:
    if before is None:
        return 1
    same = bool(request.incarnation) and request.incarnation == before.incarnation
    return before.joins if same else before.joins + 1
