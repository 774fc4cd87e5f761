"""The scrubber over real files: what it finds, how far it comes, how fast it goes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from pathlib import Path

import pytest
from crc32c import crc32c

from dfslib.datanode.metrics import Metrics
from dfslib.datanode.pacing import Pace
from dfslib.datanode.scrub import Scrubber, Volume
from dfslib.datanode.store.block_check import PIECE_BYTES
from dfslib.datanode.store.block_store import BlockStore, Finding
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock
from dfslib.datanode.store.metadata_files import MetadataFiles, MetadataWriter
from dfslib.model import BlockId, InodeId, Origin
from tests.deadline import DEADLINE_S
from tests.unit.datanode.fake_cluster import block_file_bytes, block_path

SIZES = {1: 0, 2: 1, 3: 65_536, 4: PIECE_BYTES, 5 << 30: PIECE_BYTES + 70_001, 6 << 30: 3_000_000}


class Disk:
    """A volume with blocks and copies of metadata, and what is found on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.findings: list[tuple[int, Finding]] = []
        self.bad_metadata: list[str] = []
        self.store = BlockStore(root, 0, on_finding=lambda *found: self.findings.append(found))
        self.metadata = MetadataFiles(root, lambda _: None, on_bad=self.bad_metadata.append)
        self.metrics = Metrics()
        self.finished = threading.Event()
        self.now = 1000.0

    def scrubber(self, every_s: float = 1e-3) -> Scrubber:
        volume = Volume(self.store, self.metadata, self.root / "scrub.json")
        return Scrubber(volume, every_s, self.metrics, on_finished=self.finished.set, now=lambda: self.now)

    def put(self, block: int, data: bytes, origins: list[Origin] | None = None) -> None:
        writer = BlockWriter(self.store, NewBlock(BlockId(block), origins or []), len(data))
        writer.write([data])
        writer.finish()

    def put_metadata(self, name: str, data: bytes) -> None:
        writer = MetadataWriter(self.metadata, name, crc32c(data))
        writer.write([data])
        writer.finish()

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"dfs_datanode_{name}")


@pytest.fixture
def disk(volume_root: Path) -> Disk:
    made = Disk(volume_root)
    for block, size in SIZES.items():
        made.put(block, random.Random(size).randbytes(size))
    made.put(7, b"much ado", [Origin(b"/p" * 100, InodeId(n), 0, 1) for n in range(200)])  # a footer of many KiB
    made.put_metadata("journal-1", b"j" * 1000)
    made.put_metadata("checkpoint-1", b"c" * 2_500_000)
    return made


def change(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        file.write(bytes([byte[0] ^ 8]))


def test_what_is_good_stays(disk: Disk) -> None:
    disk.scrubber().run_once()
    assert (disk.findings, disk.bad_metadata) == ([], [])
    assert disk.metric("scrubbed_blocks_total") == len(SIZES) + 1
    assert disk.metric("scrubbed_bytes_total") == sum(SIZES.values()) + 8 + 2_501_000
    assert disk.metric("scrub_bad_total") == 0
    assert disk.metric("scrub_finished_timestamp_seconds") == 1000
    assert disk.finished.is_set()


@pytest.mark.parametrize("at", [0, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 70_000, PIECE_BYTES + 70_001, -1])
def test_a_changed_byte_is_found_unread(disk: Disk, at: int) -> None:
    block = BlockId(5 << 30)
    with disk.store.opened(block):  # its footer is in memory, which must hide nothing
        change(block_path(disk.root, block), at)
        disk.scrubber().run_once()
    assert disk.findings == [(block, Finding.BAD)]
    assert disk.metric("scrub_bad_total") == 1
    assert len(list((disk.root / "quarantine").iterdir())) == 1
    disk.scrubber().run_once()
    assert len(disk.findings) == 1


def test_missing_unexpected_and_cut_off_files_are_found(disk: Disk) -> None:
    block_path(disk.root, 3).unlink()
    os.truncate(block_path(disk.root, 4), 5)
    os.truncate(block_path(disk.root, 2), 0)
    strange = disk.root / "blocks" / "00" / f"{9:016x}"
    strange.write_bytes(block_file_bytes(9, b"good"))
    strange.with_name(f"{10:016x}").write_bytes(block_file_bytes(9, b"another's name"))
    disk.scrubber().run_once()
    assert sorted(disk.findings, key=str) == sorted(
        [
            (3, Finding.MISSING),
            (4, Finding.BAD),
            (2, Finding.BAD),
            (9, Finding.UNEXPECTED),
            (10, Finding.UNEXPECTED),
            (10, Finding.BAD),
        ],
        key=str,
    )
    assert disk.store.usage().blocks == len(SIZES) + 1 - 3 + 1


@pytest.mark.parametrize("at", [0, 2_499_999, 2_500_003])
def test_bad_metadata_is_found(disk: Disk, at: int) -> None:
    change(disk.root / "metadata" / "checkpoint-1", at)
    disk.scrubber().run_once()
    assert disk.bad_metadata == ["checkpoint-1"]
    assert disk.findings == []
    assert [file.name for file in disk.metadata.all()] == ["journal-1"]


def test_a_pass_goes_on_where_it_was_stopped(disk: Disk) -> None:
    """With a period this long it reads 1 MiB a second, and is stopped in the middle."""
    place = disk.root / "scrub.json"

    async def some() -> None:
        async with disk.scrubber(every_s=1e6).running():
            async with asyncio.timeout(DEADLINE_S):
                while not disk.metric("scrubbed_blocks_total"):  # noqa: ASYNC110 - a thread counts, and wakes nobody
                    await asyncio.sleep(0.001)

    asyncio.run(some())
    done = disk.metric("scrubbed_blocks_total")
    assert done is not None
    assert 0 < done < len(SIZES) + 1
    kept = json.loads(place.read_text())
    assert (kept["started_s"], kept["resting"]) == (1000.0, False)
    disk.scrubber().run_once()
    assert disk.metric("scrubbed_blocks_total") == len(SIZES) + 1
    assert json.loads(place.read_text())["resting"] is True


def test_it_rests_until_the_next_pass_is_due(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfslib.datanode.scrub._RATE_MIN", 1 << 30)  # a pass need not take all of its period
    disk.scrubber().run_once()
    done = disk.metric("scrubbed_blocks_total") or 0
    disk.finished.clear()

    async def some(*, passes: bool) -> None:
        async with disk.scrubber(every_s=1e6).running():
            if passes:
                assert await asyncio.to_thread(disk.finished.wait, DEADLINE_S)

    asyncio.run(some(passes=False))
    assert disk.metric("scrubbed_blocks_total") == done
    disk.now += 1e6
    asyncio.run(some(passes=True))
    assert disk.metric("scrubbed_blocks_total") == 2 * done
    asyncio.run(some(passes=False))
    assert disk.metric("scrubbed_blocks_total") == 2 * done


@pytest.mark.parametrize("content", [b"", b"{", b'{"started_s": "x"}', b'{"started_s": 5e9, "directory": -7}'])
def test_a_place_that_makes_no_sense(disk: Disk, content: bytes) -> None:
    (disk.root / "scrub.json").write_bytes(content)
    disk.scrubber().run_once()
    assert disk.metric("scrubbed_blocks_total") == len(SIZES) + 1


def test_a_block_deleted_while_it_is_checked_is_no_finding(disk: Disk) -> None:
    block = BlockId(6 << 30)
    scrubber = disk.scrubber()
    with disk.store.checking(block, scrubber._buffer) as check:
        assert check.next() == PIECE_BYTES
        disk.store.delete(block)
        while check.next():
            pass
    assert disk.findings == []


def test_the_pace_is_kept_on_average() -> None:
    now = [0.0]
    pace = Pace(1000.0, lambda: now[0])
    for count in random.Random(1).choices([1, 100, 5000], k=200):
        now[0] += pace.delay_s(count)
    total = sum(random.Random(1).choices([1, 100, 5000], k=200))
    assert total / 1000 - 0.26 <= now[0] <= total / 1000
    now[0] += 3600  # an hour without work is not made up for
    assert pace.delay_s(1000) == pytest.approx(0.75)
    pace.bytes_per_s = 1e9
    assert pace.delay_s(1000) == pytest.approx(0.75, abs=0.01)
