"""What is done with the folder of a store before it is opened: each state in which a process may have left it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dfslib.namenode.checkpoint.format import Encoder, Header, name_of
from dfslib.namenode.metadata.lmdb_engine import DATA, LmdbEngine
from dfslib.namenode.verification import guard as guards
from dfslib.namenode.verification.checking import Checker, CheckFailed
from dfslib.namenode.verification.crashes import NAME as CRASH
from dfslib.namenode.verification.crashes import Crashes
from dfslib.namenode.verification.guard import COPIES, Guard
from dfslib.namenode.verification.marker import NAME as MARKER
from dfslib.namenode.verification.marker import Marker, read_marker, write_marker
from dfslib.namenode.verification.set_aside import PREFIX, REASON
from tests.unit.namenode.stores import CLUSTER, HARMS, change_store, harm_store, make_store

OTHER = "d" * 32
TIME_NS = 1_700_000_000 * 10**9


class Store:
    """A folder and what has become of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened = 0

    def guard(self) -> Guard:
        """As a process makes it that starts."""

        def count() -> None:
            self.opened += 1

        told = Crashes(self.folder).told()
        return Guard(self.folder, Checker(self.folder), told, count, lambda: TIME_NS, lambda: 0.0)

    def admit(self) -> Guard:
        """As a start does it."""
        guard = self.guard()
        admitted = asyncio.run(guard.admit())
        assert admitted == bool(self.opened)
        return guard

    @property
    def aside(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}*"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One that was opened before, and closed."""
    folder = tmp_path / "namenode"
    make_store(folder, 8)
    write_marker(folder, Marker(CLUSTER, begun=True))
    return Store(folder)


def require_set_aside(store: Store, guard: Guard, reason: str, cluster_id: str = CLUSTER) -> None:
    assert guard.remnant is not None
    assert guard.remnant.cluster_id == cluster_id
    assert reason in guard.remnant.reason
    assert not (store.folder / DATA).exists()
    assert reason in (store.aside[-1] / REASON).read_text()
    marker = read_marker(store.folder)
    assert marker is not None
    assert marker.set_aside is not None
    assert (marker.begun, marker.cluster_id, marker.suspect) == (True, cluster_id, "")
    assert marker.set_aside.folder == store.aside[-1].name
    assert store.opened == 1  # the one that is to be filled


def test_a_new_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    guard = store.admit()
    assert (guard.remnant, store.opened) == (None, 1)
    assert read_marker(tmp_path) == Marker()
    guard.opened(CLUSTER)
    assert read_marker(tmp_path) == Marker(CLUSTER, begun=True)


def test_a_good_store_is_opened(store: Store) -> None:
    guard = store.admit()
    assert (guard.remnant, store.aside, store.opened) == (None, [], 1)
    assert guard.marker.checked_ns == TIME_NS


@pytest.mark.parametrize("harm", ["zero_the_metas", "cut_off", "change_names", "swap_metas"])
def test_a_damaged_store_is_set_aside(store: Store, harm: str) -> None:
    harm_store(store.folder, HARMS[harm], 3)
    damaged = (store.folder / DATA).read_bytes()
    guard = store.admit()
    require_set_aside(store, guard, "")
    assert (store.aside[0] / DATA).read_bytes() == damaged


def test_an_emptied_store_is_no_new_one(store: Store) -> None:
    os.truncate(store.folder / DATA, 0)
    require_set_aside(store, store.admit(), "empty")


def test_a_store_that_is_gone_is_no_new_one(store: Store) -> None:
    (store.folder / DATA).unlink()
    require_set_aside(store, store.admit(), "missing")


def test_the_store_of_another_cluster(store: Store, tmp_path: Path) -> None:
    make_store(tmp_path / "other", 3, OTHER)
    shutil.copy(tmp_path / "other" / DATA, store.folder / DATA)
    require_set_aside(store, store.admit(), f"the metadata of cluster {OTHER}")


def test_a_store_without_a_cluster(store: Store) -> None:
    (store.folder / DATA).unlink()
    LmdbEngine(store.folder).close()
    require_set_aside(store, store.admit(), "holds no cluster")


@pytest.mark.parametrize("size", [0, 4096, 8192])
def test_a_first_start_that_was_interrupted_begins_anew(tmp_path: Path, size: int) -> None:
    write_marker(tmp_path, Marker())
    (tmp_path / DATA).write_bytes(bytes(size))
    store = Store(tmp_path)
    assert (store.admit().remnant, store.opened, store.aside) == (None, 1, [])
    assert not (tmp_path / DATA).exists()


def test_a_first_start_that_was_interrupted_after_its_commit_goes_on(store: Store) -> None:
    write_marker(store.folder, Marker())
    before = (store.folder / DATA).read_bytes()
    assert (store.admit().remnant, store.opened) == (None, 1)
    assert (store.folder / DATA).read_bytes() == before


def test_what_nobody_began_here_is_kept(store: Store) -> None:
    """An empty namenode waited here; then somebody put a store into its folder."""
    change_store(engine := LmdbEngine(store.folder), 100, 100)
    engine.close()
    write_marker(store.folder, Marker())
    harm_store(store.folder, HARMS["zero_the_metas"], 1)
    guard = store.admit()
    assert len(store.aside) == 1
    assert guard.remnant is not None


class TestOfAnOlderRelease:
    """It wrote no marker."""

    def test_a_good_store(self, store: Store) -> None:
        (store.folder / MARKER).unlink()
        assert (store.admit().remnant, store.opened) == (None, 1)

    def test_a_damaged_one(self, store: Store) -> None:
        (store.folder / MARKER).unlink()
        harm_store(store.folder, HARMS["cut_off"], 1)
        require_set_aside(store, store.admit(), "", cluster_id="")

    @pytest.mark.parametrize("gone", [True, False])
    def test_an_emptied_one_whose_copies_tell_of_it(self, store: Store, gone: bool) -> None:
        (store.folder / MARKER).unlink()
        header = Header("journal", CLUSTER, 0, 1, 2, 5)
        (store.folder / COPIES).mkdir()
        encoder = Encoder()
        copy = store.folder / COPIES / str(name_of(header))
        copy.write_bytes(encoder.header(header) + encoder.end())
        os.truncate(store.folder / DATA, 0)
        if gone:
            (store.folder / DATA).unlink()
        guard = store.admit()
        require_set_aside(store, guard, "missing" if gone else "empty")
        assert [str(name) for name in guard.aside(store.folder)] == [copy.name]

    def test_a_first_start_that_was_interrupted(self, tmp_path: Path) -> None:
        (tmp_path / DATA).write_bytes(b"")
        store = Store(tmp_path)
        assert (store.admit().remnant, store.opened) == (None, 1)


def test_the_marker_is_damaged(store: Store) -> None:
    """Nothing in it is believed, and the store is checked before it is opened."""
    text = (store.folder / MARKER).read_text()
    assert CLUSTER in text
    (store.folder / MARKER).write_text(text.replace(CLUSTER, OTHER))
    guard = store.guard()
    assert not asyncio.run(guard.admit())
    asyncio.run(guard.check_first())
    assert (guard.remnant, store.opened, store.aside) == (None, 1, [])


def _suspect(folder: Path) -> None:
    write_marker(folder, Marker(CLUSTER, begun=True, suspect="a page"))


def _crashed(folder: Path) -> None:
    (folder / CRASH).write_text("Fatal Python error: Bus error\n\nThread 1\n")


def _never_checked(folder: Path) -> None:
    write_marker(folder, Marker(CLUSTER, begun=True, starts=3))


SUSPICIONS: list[tuple[Callable[[Path], None], str]] = [
    (_suspect, "a page"),
    (_crashed, "Bus error"),
    (_never_checked, "opened 3 times"),
]


@pytest.mark.parametrize(("suspicion", "reason"), SUSPICIONS)
@pytest.mark.parametrize("damaged", [False, True])
def test_what_the_last_end_tells_is_looked_into_before_the_store_is_opened(
    store: Store, suspicion: Callable[[Path], None], reason: str, damaged: bool
) -> None:
    suspicion(store.folder)
    if damaged:
        harm_store(store.folder, HARMS["zero_the_metas"], 3)
    guard = store.guard()
    assert not asyncio.run(guard.admit())
    assert (store.opened, reason in guard.detail) == (0, True)
    again = store.guard()  # the process ended before the check did
    assert not asyncio.run(again.admit())
    assert (store.opened, reason in again.detail) == (0, True)
    asyncio.run(again.check_first())
    if damaged:
        require_set_aside(store, again, "")
    else:
        assert (store.opened, store.aside) == (1, [])
        assert reason in again.marker.absolved
        assert store.guard().marker.suspect == ""


def test_a_large_store_is_looked_at_and_checked_beside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "SMALL_BYTES", 1)
    for start in range(1, 4):
        assert store.admit().marker.starts == start
        store.opened = 0
    assert not asyncio.run(store.guard().admit())


def test_a_large_store_that_cannot_be_opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "SMALL_BYTES", 1)
    os.truncate(store.folder / DATA, 4096)
    require_set_aside(store, store.admit(), "")


def test_an_open_store_is_checked_at_once_where_it_was_not_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "SMALL_BYTES", 1)
    guard = store.admit()
    guard.opened(CLUSTER)

    async def run() -> None:
        watch = asyncio.create_task(guard.watch())
        async with asyncio.timeout(60):
            while guard.marker.starts:  # noqa: ASYNC110 - a marker on a disk wakes nobody
                await asyncio.sleep(0.01)
        watch.cancel()

    asyncio.run(run())
    marker = read_marker(store.folder)
    assert marker is not None
    assert (marker.starts, marker.checked_ns) == (0, TIME_NS)


def test_damage_of_an_open_store_is_found_beside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "SMALL_BYTES", 1)
    guard = store.admit()
    guard.opened(CLUSTER)
    harm_store(store.folder, HARMS["change_names"], 3)

    async def run() -> str:
        watch = asyncio.create_task(guard.watch())
        async with asyncio.timeout(60):
            reason = await guard.damaged()
        await watch
        return reason

    reason = asyncio.run(run())
    marker = read_marker(store.folder)
    assert marker is not None
    assert marker.suspect == reason != ""


def test_what_is_met_makes_the_next_start_check(store: Store) -> None:
    guard = store.admit()
    guard.opened(CLUSTER)
    guard.met("a record cannot be read")
    guard.met("another one")
    assert asyncio.run(guard.damaged()) == "a record cannot be read"
    store.opened = 0
    again = store.guard()
    assert not asyncio.run(again.admit())
    asyncio.run(again.check_first())
    again.opened(CLUSTER)
    again.met("a record cannot be read")  # the store is right: it is our own mistake, and no reason to start again
    marker = read_marker(store.folder)
    assert marker is not None
    assert (marker.suspect, marker.absolved) == ("", "a record cannot be read")


def test_a_check_that_finds_nothing_out_opens_nothing(store: Store) -> None:
    _suspect(store.folder)
    guard = store.guard()
    assert not asyncio.run(guard.admit())
    (store.folder / DATA).rename(store.folder / "away")
    with pytest.raises(CheckFailed):
        asyncio.run(guard.check_first())
    assert store.opened == 0
    assert "No such file" in guard.failure
    (store.folder / "away").rename(store.folder / DATA)
    asyncio.run(guard.check_first())
    assert (store.opened, store.aside, guard.failure) == (1, [], "")


def test_several_stores_are_set_aside_at_the_same_time(store: Store) -> None:
    for count in range(1, 4):
        store.opened = 0
        os.truncate(store.folder / DATA, 0) if (store.folder / DATA).exists() else (store.folder / DATA).touch()
        store.admit()
        assert len(store.aside) == count
