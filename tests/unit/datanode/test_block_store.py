"""The block store: durable creation, crash points, sharing, deletion, quarantine, space."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c

from dfslib.datanode.store.block_file import SLICE_BYTES, BadBlock
from dfslib.datanode.store.block_store import BlockStore, Finding
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock, Stored, write_batch
from dfslib.errors import ChecksumMismatch, Exists, FileTooLarge, NoSpace, NotFound, Unavailable
from dfslib.model import BLOCK_SIZE, BlockId, InodeId, Origin
from tests.unit.datanode.fake_cluster import block_path

DATA = b"what is stored " * 10_000


_stores: list[BlockStore] = []


def new_store(root: Path, reserved: int, **more: Any) -> BlockStore:
    store = BlockStore(root, reserved, **more)
    _stores.append(store)
    return store


@pytest.fixture(autouse=True)
def _close_stores() -> Iterator[None]:
    yield
    while _stores:
        _stores.pop().close()


def store_block(store: BlockStore, block: int, data: bytes) -> Stored:
    writer = BlockWriter(store, NewBlock(BlockId(block)), len(data))
    writer.write([data])
    return writer.finish()


def read(store: BlockStore, block: int) -> bytes:
    with store.opened(BlockId(block)) as opened:
        return opened.read(0, opened.size)


def ids(store: BlockStore) -> list[int]:
    listing = store.start_listing()
    try:
        found, last = listing.page(-1, 1000)
        assert last
        return found
    finally:
        store.end_listing(listing)


def test_a_block_outlives_the_store(volume_root: Path) -> None:
    origin = Origin(b"/a/b", InodeId(3), 0, len(DATA))
    store = new_store(volume_root, 0, clock=lambda: 77)
    writer = BlockWriter(store, NewBlock(BlockId(9), [origin], crc32c(DATA)), len(DATA))
    writer.write([DATA[:10], DATA[10:]])
    assert writer.finish() == Stored(BlockId(9), len(DATA), crc32c(DATA), True)
    again = new_store(volume_root, 0)
    assert read(again, 9) == DATA
    with again.opened(BlockId(9)) as opened:
        assert (opened.footer.origins, opened.footer.written_ns) == ([origin], 77)
    assert again.usage().used == store.usage().used == block_path(volume_root, 9).stat().st_size
    assert again.usage().blocks == store.usage().blocks == 1


CRASH_POINTS: list[tuple[str, Callable[[BlockWriter], object]]] = [
    ("some data", lambda writer: writer.write([DATA[:1000]])),
    ("all data", lambda writer: writer.write([DATA[1000:]])),
    ("footer", BlockWriter.seal),
    ("fsync", BlockWriter.sync),
    ("rename", BlockWriter.publish),
]


@pytest.mark.parametrize("steps", range(len(CRASH_POINTS) + 1))
def test_a_crash_after_each_step_leaves_the_block_whole_or_absent(volume_root: Path, steps: int) -> None:
    writer = BlockWriter(new_store(volume_root, 0), NewBlock(BlockId(5)), len(DATA))
    for _, step in CRASH_POINTS[:steps]:
        step(writer)
    store = new_store(volume_root, 0)  # as after a kill: nothing was aborted
    assert list((volume_root / "tmp").iterdir()) == []
    if steps == len(CRASH_POINTS):
        assert read(store, 5) == DATA
        assert ids(store) == [5]
    else:
        with pytest.raises(NotFound):
            read(store, 5)
        assert ids(store) == []
        assert store.usage().used == store.usage().blocks == 0
    assert store_block(store, 5, DATA).created is (steps < len(CRASH_POINTS))


def test_last_write_torn_at_every_byte(volume_root: Path) -> None:
    """Were the file named before its data was on disk: every length is refused and quarantined."""
    data = b"small"
    store = new_store(volume_root, 0)
    store_block(store, 5, data)
    path = block_path(volume_root, 5)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        store = new_store(volume_root, 0)
        with pytest.raises(BadBlock):
            read(store, 5)
        assert not path.exists()
        assert store.usage().blocks == 0
    assert len(list((volume_root / "quarantine").iterdir())) == len(whole)


def test_same_block_again_is_no_error_and_other_content_is(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    assert store_block(store, 5, DATA).created
    assert not store_block(store, 5, DATA).created
    for other in (DATA + b"x", b"", DATA[::-1]):
        with pytest.raises(Exists):
            store_block(store, 5, other)
    assert read(store, 5) == DATA
    assert store.usage().blocks == 1
    assert list((volume_root / "tmp").iterdir()) == []


def test_writing_again_replaces_a_copy_that_is_bad(volume_root: Path) -> None:
    findings: list[tuple[BlockId, Finding]] = []
    store = new_store(volume_root, 0, on_finding=lambda *found: findings.append(found))
    store_block(store, 5, DATA)
    with block_path(volume_root, 5).open("r+b") as file:
        file.seek(70_000)
        file.write(b"\xff")
    assert store_block(store, 5, DATA).created
    assert findings == [(5, Finding.BAD)]
    assert read(store, 5) == DATA
    assert store.usage().blocks == 1


def test_other_data_than_announced_is_not_stored(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    writer = BlockWriter(store, NewBlock(BlockId(5), expected_crc32c=crc32c(DATA) ^ 1))
    writer.write([DATA])
    with pytest.raises(ChecksumMismatch):
        writer.finish()
    assert ids(store) == [] == list((volume_root / "tmp").iterdir())


def test_a_block_too_large_is_not_stored(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    writer = BlockWriter(store, NewBlock(BlockId(5)))
    piece = bytes(BLOCK_SIZE // 4)
    for _ in range(4):
        writer.write([piece])
    with pytest.raises(FileTooLarge):
        writer.write([b"x"])
    assert ids(store) == [] == list((volume_root / "tmp").iterdir())


def test_abort_leaves_nothing_and_a_late_write_does_no_harm(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    writer = BlockWriter(store, NewBlock(BlockId(5)))
    writer.write([DATA])
    writer.abort()
    writer.write([DATA])
    writer.abort()
    assert list((volume_root / "tmp").iterdir()) == []


def test_many_at_once_each_fails_alone(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    store_block(store, 2, DATA)
    results = write_batch(
        store,
        [
            (NewBlock(BlockId(1)), b"one"),
            (NewBlock(BlockId(2)), b"other content"),
            (NewBlock(BlockId(3), expected_crc32c=1), b"three"),
            (NewBlock(BlockId(4 << 40)), b""),
            (NewBlock(BlockId(1)), b"one"),
        ],
    )
    assert [type(result) for result in results] == [Stored, Exists, ChecksumMismatch, Stored, Stored]
    assert [result.created for result in results if isinstance(result, Stored)] == [True, True, False]
    assert ids(store) == [1, 2, 4 << 40]
    assert read(store, 1) == b"one"
    assert list((volume_root / "tmp").iterdir()) == []


def test_every_range_of_a_block(volume_root: Path, seed: int) -> None:
    dice = random.Random(seed)
    data = dice.randbytes(5 * SLICE_BYTES + 123)
    store = new_store(volume_root, 0)
    store_block(store, 5, data)
    edges = sorted({0, 1, len(data) - 1, len(data), *(k * SLICE_BYTES + d for k in range(1, 6) for d in (-1, 0, 1))})
    with store.opened(BlockId(5)) as opened:
        for start in edges:
            for end in (edge for edge in edges if edge > start):
                assert opened.read(start, end) == data[start:end]
                assert opened.read_if_in_memory(start, end) in (None, data[start:end])
                opened.check(start, end)


def test_only_the_ranges_that_are_bad_are_refused(volume_root: Path) -> None:
    data = random.Random(1).randbytes(4 * SLICE_BYTES)
    store = new_store(volume_root, 0)
    store_block(store, 5, data)
    with block_path(volume_root, 5).open("r+b") as file:
        file.seek(2 * SLICE_BYTES + 5)
        file.write(bytes([data[2 * SLICE_BYTES + 5] ^ 1]))
    opened = store.acquire(BlockId(5))
    assert opened.read(0, 2 * SLICE_BYTES) == data[: 2 * SLICE_BYTES]
    for reader in (opened.read, opened.check, opened.read_if_in_memory):
        with pytest.raises(BadBlock):
            reader(2 * SLICE_BYTES - 1, 2 * SLICE_BYTES + 1)
    store.release(opened)


def test_a_block_being_served_is_deleted_when_it_has_been(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    store_block(store, 5, DATA)
    with store.pinned({BlockId(5), BlockId(6)}):
        assert store.delete(BlockId(5))
        assert read(store, 5) == DATA
        opened = store.acquire(BlockId(5))
    assert block_path(volume_root, 5).exists()
    store.release(opened)
    with pytest.raises(NotFound):
        read(store, 5)
    assert list(volume_root.glob("blocks/*/*")) == []
    assert store.usage().blocks == store.usage().used == 0
    assert not store.delete(BlockId(5))


def test_written_again_before_its_deletion_it_stays(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    store_block(store, 5, DATA)
    with store.pinned({BlockId(5)}):
        store.delete(BlockId(5))
        assert not store_block(store, 5, DATA).created
    assert read(store, 5) == DATA


def test_a_deletion_that_is_taken_back_in_the_last_moment_is_not_done(
    volume_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its last reader has gone, and before its name does."""
    store = new_store(volume_root, 0)
    store_block(store, 5, DATA)
    delete = store._delete

    def late(block: BlockId, *, only_doomed: bool) -> bool:
        if only_doomed:
            store.keep(block)
        return delete(block, only_doomed=only_doomed)

    monkeypatch.setattr(store, "_delete", late)
    with store.pinned({BlockId(5)}):
        store.delete(BlockId(5))
    assert read(store, 5) == DATA


def test_what_is_going_to_be_deleted_is_not_listed(volume_root: Path) -> None:
    """Who is told of it would count on it."""
    store = new_store(volume_root, 0)
    for block in (5, 6):
        store_block(store, block, DATA)
    with store.pinned({BlockId(5)}):
        store.delete(BlockId(5))
        assert ids(store) == [6]
        store.keep(BlockId(5))
        assert ids(store) == [5, 6]


def test_quarantine_spares_the_good_copy_that_took_the_place(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    store_block(store, 5, DATA)
    old = store.acquire(BlockId(5))
    store.quarantine(old, BadBlock("found first"))
    store_block(store, 5, DATA)
    store.quarantine(old, BadBlock("found again by another reader"))
    store.release(old)
    assert read(store, 5) == DATA
    assert len(list((volume_root / "quarantine").iterdir())) == 1


def test_listing_is_sorted_and_has_what_came_meanwhile(volume_root: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = new_store(volume_root, 0)
    blocks = [dice.getrandbits(64) for _ in range(60)]
    for block in blocks[:50]:
        store_block(store, block, b"x")
    listing = store.start_listing()
    for block in blocks[50:]:
        store_block(store, block, b"x")
    found: list[int] = []
    after, last = 0, False
    while not last:
        page, last = listing.page(after, 7)
        assert page == sorted(page)
        assert all(block > after for block in page)
        found += page
        after = page[-1] if page else after
    store.end_listing(listing)
    assert found == sorted(blocks)


def test_strange_files_are_ignored(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    store_block(store, 5, DATA)
    path = block_path(volume_root, 5)
    (path.parent / "notes.txt").write_text("?")
    (volume_root / "blocks" / "ff" / path.name).write_bytes(path.read_bytes())
    store = new_store(volume_root, 0)
    assert ids(store) == [5]
    assert store.usage().blocks == 1


def test_more_blocks_than_are_kept_open(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    results = write_batch(store, [(NewBlock(BlockId(n)), b"%d" % n) for n in range(600)])
    assert all(isinstance(result, Stored) for result in results)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        for n in range(600):
            assert read(store, n) == b"%d" % n
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 257
    store.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_readers_writers_and_deleters_at_once(volume_root: Path, seed: int) -> None:
    """Whatever the order: a reader sees the block's content or no block."""
    store = new_store(volume_root, 0)
    wrong: list[object] = []

    def work(number: int) -> None:
        dice = random.Random(seed + number)
        for _ in range(150):
            block = BlockId(dice.randrange(4))
            try:
                match dice.randrange(3):
                    case 0:
                        store_block(store, block, bytes([block]) * 1000)
                    case 1:
                        store.delete(block)
                    case _:
                        if read(store, block) != bytes([block]) * 1000:
                            wrong.append(block)
            except NotFound:
                pass
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.usage().blocks == len(ids(store))
    store.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount = tmp_path / "tiny"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs takes root and the right to mount")
    try:
        for name in ("blocks", "tmp", "quarantine"):
            (mount / name).mkdir()
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk(tiny_disk: Path) -> None:
    store = new_store(tiny_disk, 0)
    store_block(store, 1, bytes(1 << 20))
    with pytest.raises(NoSpace):
        BlockWriter(store, NewBlock(BlockId(2)), 4 << 20)
    writer = BlockWriter(store, NewBlock(BlockId(3)))  # its size was not announced
    with pytest.raises(NoSpace):
        for _ in range(64):
            writer.write([bytes(64 << 10)])
    assert list((tiny_disk / "tmp").iterdir()) == []
    assert ids(store) == [1]
    assert store_block(store, 4, bytes(1 << 20)).created


def test_the_reserve_is_left_untouched(tiny_disk: Path) -> None:
    store = new_store(tiny_disk, 3 << 20)
    before = store.usage()
    assert 0 < before.free <= 1 << 20
    with pytest.raises(NoSpace):
        store_block(store, 1, bytes((1 << 20) + 1))
    store_block(store, 1, bytes(1 << 19))
    assert store.usage().free < before.free
    full = new_store(tiny_disk, 1 << 40)
    assert full.usage().free == 0
    with pytest.raises(NoSpace):
        store_block(full, 2, b"")


def test_the_disk_itself_says_no(tiny_disk: Path) -> None:
    """ENOSPC from write(2), past what statvfs promised: a negative reserve lets the check pass."""
    store = new_store(tiny_disk, -(1 << 40))
    writer = BlockWriter(store, NewBlock(BlockId(1)))
    with pytest.raises(NoSpace):
        writer.write([bytes(8 << 20)])
    assert list((tiny_disk / "tmp").iterdir()) == []


@pytest.mark.parametrize("batch", [False, True])
def test_a_block_that_is_deleted_while_it_is_being_stored_does_not_appear(volume_root: Path, batch: bool) -> None:
    store = new_store(volume_root, 0)
    with store.writing(BlockId(5)) as intent:
        new = NewBlock(BlockId(5), intent=intent)
        if batch:
            assert not store.delete(BlockId(5))
            assert isinstance(write_batch(store, [(new, DATA)])[0], Unavailable)
        else:
            writer = BlockWriter(store, new, len(DATA))
            writer.write([DATA])
            assert not store.delete(BlockId(5))
            with pytest.raises(Unavailable):
                writer.finish()
    assert store.usage().blocks == 0
    assert list(store.tmp.iterdir()) == []
    with store.writing(BlockId(5)) as intent:  # a deletion holds for what was under way, not for what comes later
        assert isinstance(write_batch(store, [(NewBlock(BlockId(5), intent=intent), DATA)])[0], Stored)


def test_a_block_that_nobody_waits_for_any_more_does_not_appear(volume_root: Path) -> None:
    store = new_store(volume_root, 0)
    with pytest.raises(KeyError), store.writing(BlockId(5)) as intent:
        raise KeyError
    assert isinstance(write_batch(store, [(NewBlock(BlockId(5), intent=intent), DATA)])[0], Unavailable)
    assert store.usage().blocks == 0
