"""LMDB on a disk that fails to write: what was committed is there when the power has been cut, and nothing goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dfslib.errors import DfsError, NoSpace, Unavailable
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from tests.cluster.sick_disk import AVAILABLE, SickDisk

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="only root can mount a disk that fails")


@pytest.fixture(params=["no journal", "journal"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SickDisk]:
    with contextlib.ExitStack() as stack:
        made = SickDisk(tmp_path, journal=request.param == "journal")
        stack.callback(made.close)
        yield made


class Committing:
    """An engine, and what it has acknowledged: one key each time, and enough beside it that the file grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.acknowledged: list[bytes] = []
        self.tried = 0
        self.failures: list[str] = []
        self.open()

    def open(self) -> None:
        self.engine = LmdbEngine(self.folder, on_failed=self.failures.append)

    def commit(self) -> DfsError | None:
        self.tried += 1
        key = b"k%06d" % self.tried

        def write(txn: Txn, key: bytes) -> None:
            txn.put(key, key * 5000)

        try:
            asyncio.run(self.engine.transact(partial(write, key=key)))
        except DfsError as error:
            return error
        self.acknowledged.append(key)
        return None

    def found(self) -> list[bytes]:
        found = self.engine.read(lambda txn: list(txn.scan(b"k", b"l")))
        assert all(value == key * 5000 for key, value in found)
        return [key for key, _ in found]


def test_after_a_commit_that_failed_there_is_no_other(disk: SickDisk) -> None:
    store = Committing(disk.mount / "db")
    for _ in range(5):
        assert store.commit() is None
    disk.fail()
    while (error := store.commit()) is None:  # what the file has room for
        assert store.tried < 1000
    assert isinstance(error, Unavailable | NoSpace)
    disk.heal()
    later = [store.commit() for _ in range(5)]
    if isinstance(error, Unavailable) or store.failures:
        assert len(store.failures) == 1
        assert isinstance(later[-1], Unavailable)
    store.engine.close()
    disk.cut_power()
    store.open()
    found = store.found()
    assert [key for key in store.acknowledged if key not in found] == []
    assert store.commit() is None
    store.engine.close()


def test_what_fails_for_a_moment_is_not_believed_later(disk: SickDisk) -> None:
    """Again and again, with a new process after each failure: what was acknowledged stays."""
    store = Committing(disk.mount / "db")
    for _ in range(4):
        for _ in range(3):
            store.commit()
        disk.fail()
        for _ in range(3):
            store.commit()
        disk.heal()
        store.commit()
        store.engine.close()
        disk.cut_power()
        store.open()
        assert [key for key in store.acknowledged if key not in store.found()] == []
    store.engine.close()
