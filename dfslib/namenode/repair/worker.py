"""Carries out plans of repair: looks at all blocks, gives orders to datanodes, enters what they report.

A plan is made anew when something changed (a datanode came, went or reported damage, a write got too few
copies) and every minute. What is running is bounded, and is tried again when nothing comes of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Final, NamedTuple

from msgspec.structs import replace

from dfslib.model import BlockId, NodeId, format_block
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.membership.registry import NodeState, Registry
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn, Txn
from dfslib.namenode.namespace import records
from dfslib.namenode.repair.planner import BlockState, Copy, Drop, Member, Plan, make_plan
from dfslib.runtime.logs import event
from dfslib.wire.messages import CopyOrder

log = logging.getLogger("dfs.repair")

_RUNNING_BYTES: Final = 256 << 20
_RUNNING_BLOCKS: Final = 256
"""Copies under way to one datanode: enough to keep it busy between two heartbeats, few enough to change one's mind."""
_REPLAN_EVERY_S: Final = 60.0
_PLAN_SHARE: Final = 10
"""A plan is not made again before this many times the time that the last one took."""
_GIVE_UP_S: Final = 600.0
"""A copy that nothing was heard of for so long is ordered again: a full block at 100 KB/s."""
_LOST_SHOWN: Final = 10


class Progress(NamedTuple):
    """For the status. `short`: blocks that lacked copies at the last plan."""

    short: int
    lost: int
    waiting: int
    running: int
    done: int


class _Running(NamedTuple):
    """An order that a datanode was given: when, and of how many bytes."""

    since_s: float
    size: int


class Repair:
    def __init__(
        self,
        engine: MetadataEngine,
        registry: Registry,
        orders: Orders,
        wanted: Callable[[ReadTxn, BlockId], int],
        monotonic: Callable[[], float],
    ) -> None:
        """`wanted` gives a block's number of copies, or REPLICATION_ALL."""
        self._engine = engine
        self._registry = registry
        self._orders = orders
        self._wanted = wanted
        self._monotonic = monotonic
        self.is_held: Callable[[], bool] = lambda: False
        """Whether no copy is to be deleted now, not even a surplus one."""
        self._plan = Plan([], [], 0, [], {})
        self._waiting: dict[NodeId, deque[Copy]] = {}
        self._running: dict[NodeId, dict[BlockId, _Running]] = {}
        self._members: dict[NodeId, tuple[NodeState, bool]] = {}
        self._stale = True
        self._planning = False
        self._planned_s = float("-inf")
        self._next_plan_s = float("-inf")
        self._done = 0

    @property
    def progress(self) -> Progress:
        plan = self._plan
        return Progress(plan.short, len(plan.lost), _count(self._waiting), _count(self._running), self._done)

    @property
    def is_at_work(self) -> bool:
        """Whether copies are to be made, or may be: that is not known until there is a plan for what changed last."""
        return (
            self._stale
            or self._planning
            or bool(self._plan.copies or self._waiting)
            or any(self._running.values())
        )

    def held_back(self, node: NodeId) -> int | None:
        """Blocks of this datanode that lack copies elsewhere; None while that is not known."""
        return None if self._stale else self._plan.held_back.get(node, 0)

    def is_busy(self, node: NodeId) -> bool:
        """Whether copies to this datanode are under way: what it says of them is waited for."""
        return bool(self._running.get(node))

    def changed(self) -> None:
        """Something happened that a new plan should know of."""
        self._stale = True

    async def run_once(self) -> None:
        """Look who is there, plan if it is time to, and give the orders that datanodes have room for."""
        now = self._monotonic()
        members = {
            node.id: (self._registry.state(node, now), self._registry.is_writable(node, now))
            for node in self._registry.all()
        }
        if members != self._members:
            self._members, self._stale = members, True
            self._drop_running_of(node for node, (state, _) in members.items() if state is not NodeState.ALIVE)
        for running in self._running.values():
            for block in [block for block, order in running.items() if now - order.since_s > _GIVE_UP_S]:
                del running[block]
                self._stale = True
        if now >= self._next_plan_s and (self._stale or now - self._planned_s > _REPLAN_EVERY_S):
            await self._make_plan(now)
        self._dispatch(now)

    async def outcome(self, node: NodeId, copied: Sequence[int], failed: Sequence[int], bad: Sequence[int]) -> None:
        """What a datanode says of its orders, and of copies it found damaged. May be told twice."""
        if not (copied or failed or bad):
            return
        unused = await self._engine.transact(lambda txn: _enter(txn, node, copied, bad))
        self._orders.delete(unused, [node])
        done = set(copied)
        for block in (*copied, *failed):
            if self._running.get(node, {}).pop(BlockId(block), None) is not None and block in done:
                self._done += 1
        for block in bad:
            log.warning(event("damaged copy", node=node, block=format_block(BlockId(block))))
        if failed or bad:
            self._stale = True
        self._dispatch(self._monotonic())

    async def _make_plan(self, now: float) -> None:
        started = time.perf_counter()
        self._stale = False
        self._planned_s = now
        present = self._member_list(now)
        self._planning = True
        try:
            self._plan = await asyncio.to_thread(self._engine.read, lambda txn: make_plan(self._blocks(txn), present))
        finally:
            self._planning = False
        self._waiting = {}
        for copy in self._plan.copies:
            self._waiting.setdefault(copy.target, deque()).append(copy)
        self._next_plan_s = self._monotonic() + _PLAN_SHARE * (time.perf_counter() - started)
        for block in self._plan.lost[:_LOST_SHOWN]:
            log.error(event("block has no copy on any datanode that is there", block=format_block(block)))
        if self._plan.drops and not self.is_held():
            await self._drop(self._plan.drops)
        if self._plan.copies:
            log.info(event("repair planned", short=self._plan.short, copies=len(self._plan.copies)))

    def _member_list(self, now: float) -> dict[NodeId, Member]:
        readable = {node.id for node in self._registry.readable(now)}
        members = {}
        for node in self._registry.all():
            state = self._registry.state(node, now)
            if state is not NodeState.DEAD:
                members[node.id] = Member(
                    node.id,
                    node.host,
                    node.free,
                    readable=node.id in readable,
                    writable=self._registry.is_writable(node, now),
                    counts=not node.drained and not node.leaving,
                )
        return members

    def _blocks(self, txn: ReadTxn) -> Iterator[BlockState]:
        for block, record in records.scan_blocks(txn):
            if record.live and not record.deferred:
                yield BlockState(block, record.size, record.nodes, self._wanted(txn, block))

    def _dispatch(self, now: float) -> None:
        """Give each datanode as many orders as it has room for."""
        for target, waiting in list(self._waiting.items()):
            running = self._running.setdefault(target, {})
            size = sum(order.size for order in running.values())
            while waiting and len(running) < _RUNNING_BLOCKS and (not running or size < _RUNNING_BYTES):
                copy = waiting.popleft()
                if copy.block in running:
                    continue
                urls = [source.url for id in copy.sources if (source := self._registry.get(id))]
                self._orders.copy(target, CopyOrder(copy.block, copy.size, urls))
                running[copy.block] = _Running(now, copy.size)
                size += copy.size
            if not waiting:
                del self._waiting[target]
        if not self._waiting and not any(self._running.values()) and self._plan.copies:
            self._plan = self._plan._replace(copies=[])
            self._stale = True  # whether more than one plan's worth is missing

    def _drop_running_of(self, nodes: Iterator[NodeId]) -> None:
        for node in nodes:
            self._running.pop(node, None)

    async def _drop(self, drops: Sequence[Drop]) -> None:
        """Give up surplus copies: out of the metadata first, then off the disk."""
        live = frozenset(node.id for node in self._registry.alive(self._monotonic()))
        given_up = await self._engine.transact(lambda txn: _give_up(txn, drops, live, self._wanted))
        for drop in given_up:
            self._orders.delete([drop.block], [drop.node])


def _enter(txn: Txn, node: NodeId, copied: Sequence[int], bad: Sequence[int]) -> list[BlockId]:
    """Enter new copies and strike damaged ones; the copied blocks that no file uses any more."""
    unused: list[BlockId] = []
    for number in copied:
        block = BlockId(number)
        record = records.find_block(txn, block)
        if record is None:
            unused.append(block)
        elif node not in record.nodes:
            records.put_block(txn, block, replace(record, nodes=(*record.nodes, node)))
    for number in bad:
        block = BlockId(number)
        record = records.find_block(txn, block)
        if record is not None and node in record.nodes and number not in copied:
            records.put_block(txn, block, replace(record, nodes=tuple(n for n in record.nodes if n != node)))
    return unused


def _give_up(
    txn: Txn, drops: Sequence[Drop], live: frozenset[NodeId], wanted: Callable[[ReadTxn, BlockId], int]
) -> list[Drop]:
    """Strike surplus copies, unless a block has no more than it should have by now."""
    done: list[Drop] = []
    for drop in drops:
        record = records.find_block(txn, drop.block)
        if record is None or drop.node not in record.nodes:
            continue
        if len(live.intersection(record.nodes)) <= max(1, wanted(txn, drop.block)):
            continue
        records.put_block(txn, drop.block, replace(record, nodes=tuple(n for n in record.nodes if n != drop.node)))
        done.append(drop)
    return done


def _count(by_node: Mapping[NodeId, Sized]) -> int:
    return sum(len(of_node) for of_node in by_node.values())
