"""Datanodes that are dead, written in the store: a namenode that starts does not wait for them.

Only one that is in touch with at least half of those that count says so. A namenode that has lost them all may be the
one that is cut off, and a copy of its store must not be served on the strength of a silence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from dfslib.model import NodeId
from dfslib.namenode.membership.registry import NodeState, Registry
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace import records
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.membership")

_THERE: Final = (NodeState.ALIVE, NodeState.DRAINING)


class Deaths:
    def __init__(self, engine: MetadataEngine, registry: Registry, monotonic: Callable[[], float]) -> None:
        self._engine = engine
        self._registry = registry
        self._monotonic = monotonic

    async def run_once(self) -> None:
        """Write down who has died, and who is there again without having joined anew."""
        now_s = self._monotonic()
        nodes = {node.id: node for node in self._registry.all() if not node.drained}
        states = {node_id: self._registry.state(node, now_s) for node_id, node in nodes.items()}
        back = [node_id for node_id, node in nodes.items() if node.dead and states[node_id] in _THERE]
        dead = newly_dead({node_id: state for node_id, state in states.items() if not nodes[node_id].dead})
        if not dead and not back:
            return
        for node_id in (*dead, *back):
            nodes[node_id].dead = node_id in dead
        await self._engine.transact(partial(_write, dead, back))
        if dead:
            log.warning(event("datanodes are dead", nodes=",".join(dead), action="a restart does not wait for them"))


def newly_dead(states: Mapping[NodeId, NodeState]) -> list[NodeId]:
    """Of the datanodes that count: those that are dead, if at least half of all are there to say so."""
    there = sum(state in _THERE for state in states.values())
    if 2 * there < len(states):
        return []
    return [node for node, state in states.items() if state is NodeState.DEAD]


def _write(dead: Sequence[NodeId], back: Sequence[NodeId], txn: Txn) -> None:
    for record in list(records.scan_nodes(txn)):  # who is not among them was forgotten meanwhile
        if record.node_id in dead or record.node_id in back:
            records.put_node(txn, replace(record, dead=record.node_id in dead))
