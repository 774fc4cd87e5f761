"""The index of blocks against a dict."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dfslib.datanode.store.block_index import DIRECTORIES, BlockIndex, directory_number
from dfslib.model import BlockId

IDS = st.one_of(st.integers(0, 5), st.sampled_from([1 << 30, 1 << 38, (1 << 38) + 1, (1 << 64) - 1])).map(BlockId)
SIZES = st.sampled_from([0, 1, 20, 64 << 20])


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.index = BlockIndex()
        self.model: dict[BlockId, int] = {}

    @rule(block=IDS, size=SIZES)
    def add(self, block: BlockId, size: int) -> None:
        assert self.index.add(block, size) is (block not in self.model)
        self.model.setdefault(block, size)

    @rule(block=IDS)
    def remove(self, block: BlockId) -> None:
        assert self.index.remove(block) is (self.model.pop(block, None) is not None)

    @rule(found=st.dictionaries(IDS, SIZES))
    def fill(self, found: dict[BlockId, int]) -> None:
        self.index, self.model = BlockIndex(), found
        for number in range(DIRECTORIES):
            self.index.fill(number, [pair for pair in found.items() if directory_number(pair[0]) == number])

    @rule(block=IDS)
    def look(self, block: BlockId) -> None:
        assert (block in self.index) is (block in self.model)

    @invariant()
    def same(self) -> None:
        assert (self.index.count, self.index.used_bytes) == (len(self.model), sum(self.model.values()))
        for number in {directory_number(block) for block in self.model}:
            expected = sorted(block for block in self.model if directory_number(block) == number)
            assert self.index.in_directory(number) == expected


TestIndex = IndexMachine.TestCase


def test_a_file_of_any_size_can_be_entered() -> None:
    index = BlockIndex()
    index.add(BlockId(1), 1 << 40)
    index.remove(BlockId(1))
    assert index.used_bytes == 0
