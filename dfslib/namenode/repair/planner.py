"""What to copy where, and which copies are too many. Pure: the same cluster has the same plan.

A copy counts while its datanode is not dead and is not being drained; a suspect one may be back in a moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from dfslib.model import REPLICATION_ALL, BlockId, NodeId
from dfslib.namenode.blocks.placement import Candidate, place

PLAN_MAX: Final = 5000
"""Copies in one plan; the worst off are in it, the rest waits for the next one."""


class Member(NamedTuple):
    """A datanode that is not dead. `free` is in bytes."""

    node: NodeId
    host: str
    free: int
    readable: bool
    """Alive or being drained: it can be copied from."""
    writable: bool
    """Alive, with space, not being drained: it can be copied to."""
    counts: bool
    """Its copies count."""


class BlockState(NamedTuple):
    """A block in use. `wanted` is a number of copies or REPLICATION_ALL."""

    block: BlockId
    size: int
    holders: Sequence[NodeId]
    wanted: int


class Copy(NamedTuple):
    """Bring `block` from one of `sources` to `target`. Sorts by urgency: the fewest good copies first."""

    copies: int
    block: BlockId
    size: int
    target: NodeId
    sources: tuple[NodeId, ...]


class Drop(NamedTuple):
    """A copy too many."""

    block: BlockId
    node: NodeId


class Plan(NamedTuple):
    """`copies` most urgent first. `short`: blocks that lack copies. `lost`: blocks with no readable copy.

    `held_back`: for each datanode, the blocks that lack copies and that it holds: with none, it can go.
    """

    copies: list[Copy]
    drops: list[Drop]
    short: int
    lost: list[BlockId]
    held_back: dict[NodeId, int]


def make_plan(blocks: Iterable[BlockState], members: Mapping[NodeId, Member]) -> Plan:
    """The plan for these blocks on these datanodes; sizes and free space are taken as they are now."""
    urgent: list[tuple[int, int, Copy]] = []  # a heap with the least urgent on top
    drops: list[Drop] = []
    lost: list[BlockId] = []
    held_back: dict[NodeId, int] = {}
    short = 0
    for state in blocks:
        counted = [node for node in state.holders if node in members and members[node].counts]
        sources = tuple(node for node in state.holders if node in members and members[node].readable)
        missing = _missing(state, counted, members)
        if missing < 0:
            drops += _surplus(state, -missing, members)
        if missing <= 0:
            continue
        short += 1
        for node in state.holders:
            held_back[node] = held_back.get(node, 0) + 1
        if not sources:
            if not counted:
                lost.append(state.block)
            continue
        for target in _targets(state, missing, members):
            copy = Copy(len(sources), state.block, state.size, target, sources)
            heapq.heappush(urgent, (-copy.copies, -copy.block, copy))
            if len(urgent) > PLAN_MAX:
                heapq.heappop(urgent)
    return Plan(sorted(copy for _, _, copy in urgent), drops[:PLAN_MAX], short, lost, held_back)


def _missing(state: BlockState, counted: Sequence[NodeId], members: Mapping[NodeId, Member]) -> int:
    """Copies to be made; below 0, copies too many."""
    if state.wanted != REPLICATION_ALL:
        return state.wanted - len(counted)
    return sum(1 for member in members.values() if member.writable and member.node not in state.holders)


def _targets(state: BlockState, missing: int, members: Mapping[NodeId, Member]) -> list[NodeId]:
    """Where new copies go: hosts that have none first, then by rendezvous as new blocks do."""
    candidates = {
        member.node: Candidate(member.node, member.host, member.free)
        for member in members.values()
        if member.writable and member.node not in state.holders and member.free > state.size
    }
    taken = {members[node].host for node in state.holders if node in members and members[node].counts}
    ranked = place(list(candidates.values()), state.block, len(candidates))
    ranked.sort(key=lambda node: candidates[node].host in taken)
    chosen: list[NodeId] = []
    for node in ranked:
        if len(chosen) < missing and candidates[node].host not in taken:
            chosen.append(node)
            taken.add(candidates[node].host)
    chosen += [node for node in ranked if node not in chosen][: missing - len(chosen)]
    return chosen


def _surplus(state: BlockState, excess: int, members: Mapping[NodeId, Member]) -> list[Drop]:
    """The copies to give up: those that placement likes least, as long as enough remain on live datanodes."""
    live = [
        Candidate(member.node, member.host, member.free)
        for node in state.holders
        if (member := members.get(node)) and member.counts and member.readable
    ]
    spare = min(excess, len(live) - state.wanted)
    if spare <= 0:
        return []
    kept = place(live, state.block, len(live) - spare)
    return [Drop(state.block, candidate.node) for candidate in live if candidate.node not in kept]
