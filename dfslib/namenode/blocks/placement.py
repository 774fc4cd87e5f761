"""Which datanodes get a new block. Pure: the same question has the same answer.

Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): each datanode draws a number from its id
and the block's, scaled by its free space; the highest win. No table, and a datanode that comes or goes
moves only its own share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from dfslib.model import REPLICATION_ALL, BlockId, NodeId


class Candidate(NamedTuple):
    """A datanode that takes writes. `host` tells machines apart; `free` is in bytes."""

    node: NodeId
    host: str
    free: int


def place(candidates: Sequence[Candidate], block: BlockId, copies: int) -> list[NodeId]:
    """The datanodes for `copies` copies (REPLICATION_ALL: all of them), best first; fewer if there are
    fewer. No two on one host while another host has none."""
    ranked = sorted(candidates, key=lambda candidate: _score(candidate, block), reverse=True)
    if copies == REPLICATION_ALL or copies >= len(ranked):
        return [candidate.node for candidate in ranked]
    hosts: set[str] = set()
    firsts: list[Candidate] = []
    others: list[Candidate] = []
    for candidate in ranked:
        (others if candidate.host in hosts else firsts).append(candidate)
        hosts.add(candidate.host)
    return [candidate.node for candidate in (firsts + others)[:copies]]


def _score(candidate: Candidate, block: BlockId) -> float:
    digest = blake2b(candidate.node.encode() + block.to_bytes(8, "big"), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2**64
    return max(1, candidate.free) / -math.log(uniform)
