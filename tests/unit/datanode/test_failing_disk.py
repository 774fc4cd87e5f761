"""A disk that fails to write for a while, or for good: nothing is said to be on it that is not, whoever asks again.

Every moment at which a write back may fail is one at which it does, in some run: the disk is a model below `os`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dfslib.datanode.losses import Losses
from dfslib.datanode.store import block_index, block_store, volume_sync
from dfslib.datanode.store.block_store import BlockStore, Finding
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock, Stored, write_batch
from dfslib.datanode.store.volume import Volume
from dfslib.datanode.store.volume_sync import GIVE_UP_S, VolumeSync
from dfslib.errors import DfsError, Exists, InputOutput
from dfslib.model import BlockId
from tests.unit.datanode.failing_disk import FailingDisk

DIRECTORY = 1 << 30
"""Ids so far apart lie in different directories."""


class Datanode:
    """A volume on a failing disk, as far as it stores blocks; and a namenode, as far as it hears of losses."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        disk = FailingDisk(root, monkeypatch)
        self.root, self.disk = root, disk
        monkeypatch.setattr(volume_sync, "_is_on_disk", lambda block, path, buffer: disk.has_data(path))
        self.now_s = 0.0
        self.start()

    def start(self) -> None:
        """A process, after the one before it was killed: what it knew is gone, what the kernel has is not."""
        Volume.open(self.root).close()
        self.losses = Losses()
        self.store = BlockStore(self.root, 0, on_finding=self._found)
        self.sync = VolumeSync(
            self.store, self.root, is_told=self.losses.is_told, monotonic=lambda: self.now_s
        )

    def end(self) -> None:
        self.sync.close()
        self.store.close()

    def _found(self, block: BlockId, finding: Finding) -> None:
        assert finding is not Finding.UNEXPECTED
        self.losses.add(block)

    def put(self, block: BlockId, data: bytes, *, sync: bool) -> Stored:
        with self.store.writing(block) as intent:
            writer = BlockWriter(self.store, NewBlock(block, sync=sync, intent=intent), len(data))
            writer.write([data])
            return writer.finish()

    def has(self, block: BlockId) -> bool:
        """Whether the disk has the block, whatever the memory has."""
        return self.disk.has(self.store.path(block))

    def tell(self) -> set[BlockId]:
        """The namenode hears of what is lost."""
        losses = self.losses.untold()
        self.losses.told(losses)
        return {block for block in losses if block not in self.store}


@pytest.fixture
def datanode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Datanode]:
    made = Datanode(tmp_path / "volume", monkeypatch)
    yield made
    made.end()


ONE, TWO, FAR = BlockId(1), BlockId(2), BlockId(DIRECTORY)


def test_a_sync_that_failed_does_not_succeed_the_next_time_for_nothing(datanode: Datanode) -> None:
    datanode.put(ONE, b"one", sync=False)
    datanode.disk.fails = True
    for _ in range(3):
        with pytest.raises(InputOutput, match="1 blocks are not on it"):
            datanode.sync.sync()
    assert ONE in datanode.store
    datanode.disk.fails = False
    datanode.sync.sync()
    assert datanode.has(ONE)
    assert not datanode.losses.untold()


def test_what_the_kernel_failed_to_write_by_itself_is_noticed(datanode: Datanode) -> None:
    datanode.sync.sync()
    datanode.put(ONE, b"one", sync=False)
    datanode.disk.fails = True
    datanode.disk.write_back()
    datanode.disk.fails = False
    datanode.sync.sync()
    assert datanode.has(ONE)


def test_a_disk_that_fails_for_a_minute_has_lost_the_blocks_and_the_namenode_is_told_first(datanode: Datanode) -> None:
    datanode.put(ONE, b"one", sync=False)
    datanode.disk.fails = True
    with pytest.raises(InputOutput):
        datanode.sync.sync()
    datanode.now_s += GIVE_UP_S
    with pytest.raises(InputOutput):
        datanode.sync.sync()
    assert ONE not in datanode.store
    datanode.disk.fails = False
    with pytest.raises(InputOutput, match="lost here"):
        datanode.sync.sync()
    assert datanode.tell() == {ONE}
    datanode.sync.sync()
    (kept,) = (datanode.root / "quarantine").iterdir()
    assert kept.read_bytes().startswith(b"one")


def test_a_process_that_comes_after_one_whose_sync_failed(
    datanode: Datanode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has told that one, and tells this one nothing."""
    datanode.put(ONE, b"one", sync=False)
    datanode.disk.fails = True
    datanode.disk.write_back()
    datanode.disk.fails = False
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 9, 0, 0, 9, 9, 9, 0, 255)))
        with pytest.raises(InputOutput, match="0 bytes left"):
            datanode.sync.sync()
    datanode.end()
    datanode.start()
    datanode.sync.sync()
    assert datanode.has(ONE)
    assert not (datanode.root / "sync-failed").exists()


def test_a_process_syncs_what_the_one_before_it_left(datanode: Datanode) -> None:
    datanode.put(ONE, b"one", sync=False)
    datanode.end()
    datanode.start()
    datanode.sync.sync()
    assert datanode.has(ONE)


def test_a_process_takes_nothing_for_synced_that_the_one_before_it_left(datanode: Datanode) -> None:
    datanode.put(ONE, b"one", sync=False)
    datanode.end()
    datanode.disk.fails = True
    datanode.disk.write_back()
    datanode.disk.fails = False
    datanode.start()
    assert not datanode.put(ONE, b"one", sync=True).created
    assert datanode.has(ONE)


@pytest.mark.parametrize("what", ["file", "name"])
def test_a_block_whose_fsync_failed_is_not_here_and_the_next_attempt_writes_all_of_it(
    datanode: Datanode, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "name":  # the file is on disk by then
        publish = datanode.store.publish

        def failing_from_now_on(*args: object, **options: object) -> int | None:
            datanode.disk.fails = True
            return publish(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(datanode.store, "publish", failing_from_now_on)
    else:
        datanode.disk.fails = True
    with pytest.raises(InputOutput):
        datanode.put(ONE, b"one", sync=True)
    assert ONE not in datanode.store
    assert list((datanode.root / "tmp").iterdir()) == []
    if what == "name":
        monkeypatch.setattr(datanode.store, "publish", publish)
    datanode.disk.fails = False
    assert datanode.put(ONE, b"one", sync=True).created
    assert datanode.has(ONE)


def test_two_who_store_the_same_block_while_its_name_fails(datanode: Datanode) -> None:
    """The second one has named its file when the first one's fsync fails: it must not take that for its own success."""
    first, second = (BlockWriter(datanode.store, NewBlock(ONE), 3) for _ in range(2))
    for writer in (first, second):
        writer.write([b"one"])
        writer.seal()
        writer.sync()
    first.publish()
    assert not second.publish().created
    datanode.disk.fails = True
    with pytest.raises(OSError, match="the disk fails"):
        first.confirm()
    datanode.disk.fails = False
    with pytest.raises(OSError, match="has failed"):
        second.confirm()
    assert datanode.put(ONE, b"one", sync=True)
    assert datanode.has(ONE)


def test_a_batch_fails_as_a_whole_where_the_disk_fails_to_sync(datanode: Datanode) -> None:
    batch = [(NewBlock(BlockId(number)), b"data") for number in (1, 2, DIRECTORY)]
    datanode.disk.fails = True
    results = write_batch(datanode.store, batch)
    assert all(isinstance(result, InputOutput) for result in results)
    assert all(new.block not in datanode.store for new, _ in batch)
    assert list((datanode.root / "tmp").iterdir()) == []
    datanode.disk.fails = False
    assert all(isinstance(result, Stored) for result in write_batch(datanode.store, batch))
    assert all(datanode.has(new.block) for new, _ in batch)


def test_other_content_does_not_take_the_place_of_an_unsynced_block(datanode: Datanode) -> None:
    datanode.put(ONE, b"one", sync=False)
    with pytest.raises(Exists):
        datanode.put(ONE, b"two", sync=True)
    assert not datanode.put(ONE, b"one", sync=False).created
    assert not datanode.has(ONE)
    assert not datanode.put(ONE, b"one", sync=True).created
    assert datanode.has(ONE)
    with datanode.store.opened(ONE) as opened:
        assert opened.read(0, 3) == b"one"


def test_while_the_disk_fails_everything_is_synced_at_once(datanode: Datanode) -> None:
    assert not datanode.store.unsynced.is_failing
    datanode.disk.fails = True
    with pytest.raises(InputOutput):
        datanode.put(ONE, b"one", sync=True)
    assert datanode.store.unsynced.is_failing
    datanode.disk.fails = False
    datanode.put(ONE, b"one", sync=True)
    assert not datanode.store.unsynced.is_failing


class Failures(RuleBasedStateMachine):
    """Any order of writes, syncs, deletions, ends of the process, and a disk that fails and works again."""

    @initialize()
    def begin(self) -> None:
        self.stack = contextlib.ExitStack()
        root = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "volume"
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        for module in (block_index, block_store):  # else most of the time goes into making directories
            patch.setattr(module, "DIRECTORIES", 2)
        self.datanode = Datanode(root, patch)
        self.known: dict[BlockId, bytes] = {}
        """Acknowledged, and not deleted or told to be lost."""
        self.durable: set[BlockId] = set()
        """Those of them that were said to be on disk."""
        self.numbers = itertools.count(1)

    def teardown(self) -> None:
        if hasattr(self, "datanode"):
            self.datanode.end()
            self.stack.close()

    def _block(self, where: int) -> BlockId:
        return BlockId(next(self.numbers) + where * DIRECTORY)

    @rule(where=st.sampled_from([0, 1]), sync=st.booleans(), size=st.sampled_from([0, 5, 5000]))
    def put(self, where: int, sync: bool, size: int) -> None:
        self._put(self._block(where), random.Random(size).randbytes(size), sync)

    @rule(data=st.data(), sync=st.booleans())
    def put_again(self, data: st.DataObject, sync: bool) -> None:
        if self.known:
            block = data.draw(st.sampled_from(sorted(self.known)))
            self._put(block, self.known[block], sync)

    def _put(self, block: BlockId, data: bytes, sync: bool) -> None:
        try:
            self.datanode.put(block, data, sync=sync)
        except DfsError:
            return
        self.known[block] = data
        if sync:
            self.durable.add(block)

    @rule(count=st.integers(2, 4), where=st.sampled_from([0, 1]), sync=st.booleans())
    def put_together(self, count: int, where: int, sync: bool) -> None:
        batch = [(NewBlock(self._block(where), sync=sync), b"together") for _ in range(count)]
        for (new, data), result in zip(batch, write_batch(self.datanode.store, batch), strict=True):
            if isinstance(result, Stored):
                self.known[new.block] = data
                if sync:
                    self.durable.add(new.block)

    @rule()
    def sync(self) -> None:
        try:
            self.datanode.sync.sync()
        except DfsError:
            return
        self.durable.update(self.known)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.known:
            block = data.draw(st.sampled_from(sorted(self.known)))
            self.datanode.store.delete(block)
            self.known.pop(block)
            self.durable.discard(block)

    @rule(fails=st.booleans())
    def disk(self, fails: bool) -> None:
        self.datanode.disk.fails = fails

    @rule()
    def write_back(self) -> None:
        self.datanode.disk.write_back()

    @rule()
    def tell(self) -> None:
        for block in self.datanode.tell():
            assert self.known.pop(block, None) is None or block not in self.durable or not self.datanode.has(block)
            self.durable.discard(block)

    @rule(seconds=st.sampled_from([1.0, GIVE_UP_S]))
    def pass_time(self, seconds: float) -> None:
        self.datanode.now_s += seconds

    @rule()
    def restart(self) -> None:
        """The namenode hears from the report what is here. On a disk that fails no process starts; and names are there,
        as a file system that has failed to write these takes no more writes."""
        self.datanode.end()
        self.datanode.disk.write_back_data()
        self.datanode.disk.fails = False
        self.datanode.disk.write_back_names()
        self.datanode.start()
        for block in [block for block in self.known if block not in self.datanode.store]:
            del self.known[block]
            self.durable.discard(block)

    @invariant()
    def what_is_said_to_be_on_disk_is(self) -> None:
        if hasattr(self, "datanode"):
            missing = [block for block in self.durable if not self.datanode.has(block)]
            assert not missing
            untold = self.datanode.losses.untold()
            assert all(block in self.datanode.store or block in untold for block in self.known)


Failures.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestFailures = Failures.TestCase


def test_the_model_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FailingDisk(tmp_path, monkeypatch)
    fd = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x")
    disk.fails = True
    with pytest.raises(OSError, match="the disk fails"):
        os.fsync(fd)
    disk.fails = False
    os.fsync(fd)  # which is the trap
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    assert not disk.has(tmp_path / "a")
    os.close(fd)
    os.close(folder)
