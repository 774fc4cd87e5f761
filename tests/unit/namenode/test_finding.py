"""Blocks that restored metadata lacks: none is forgotten before it is a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import pytest

from dfslib.errors import InputOutput, NoSpace
from dfslib.model import BlockId, InodeId, NodeId, Origin
from dfslib.namenode.checkpoint import finding
from dfslib.namenode.checkpoint.finding import Finder
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace.create import make_root
from dfslib.transfer.block_source import BlockDescription
from dfslib.transfer.peer_session import PeerSession
from tests.interleaving import chance, run

T = TypeVar("T")
NODE = NodeId("n")


class FullEngine(MemoryEngine):
    full = False

    async def transact(self, fn: Callable[[Txn], T], by: object = None) -> T:
        if self.full:
            raise NoSpace("the namenode's disk is full")
        return await super().transact(fn, by)


def test_a_disk_that_is_full_or_a_datanode_that_is_away_only_puts_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    away = {BlockId(3)}

    async def describe(session: object, urls: Sequence[str], block: BlockId) -> BlockDescription:
        if block in away:
            raise InputOutput("it is away")
        return BlockDescription(10, 0, [Origin(b"/f%d" % block, InodeId(0), 0, 10)])

    async def scenario() -> None:
        engine = FullEngine(chance())
        await engine.transact(lambda txn: make_root(txn, 1))
        finder = Finder(engine, lambda nodes: ["http://n/"], lambda: 5)
        finder.use(cast(PeerSession, object()))  # `describe` stands in for what is asked with it
        finder.found([1, 2, 3], NODE)
        engine.full = True
        with pytest.raises(NoSpace):
            await finder.run_once()
        engine.full = False
        assert await finder.run_once() == 2
        away.clear()
        assert await finder.run_once() == 1
        assert await finder.run_once() == 0

    monkeypatch.setattr(finding, "describe_block", describe)
    run(scenario())
