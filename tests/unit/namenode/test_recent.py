"""What is kept of commits beside the store leads from the copies to the last commit that was acknowledged."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfslib.namenode.checkpoint import format as files
from dfslib.namenode.checkpoint import recent as recents
from dfslib.namenode.checkpoint.chains import best_chain
from dfslib.namenode.checkpoint.format import Header
from dfslib.namenode.checkpoint.journal import Journal
from dfslib.namenode.checkpoint.recent import Recent, as_journals, last_kept
from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn, Txn
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from tests.unit.namenode.stores import CLUSTER, go_on

EPOCH = 3
State = dict[bytes, bytes]


def everything(txn: ReadTxn) -> State:
    return {bytes(key): bytes(value) for key, value in txn.scan(b"", b"\xff" * KEY_MAX)}


class Store:
    """A store whose commits are kept, and every state that it was ever in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recent = folder / "recent"
        self.states: dict[int, State] = {0: {}}
        self.start()

    def start(self) -> None:
        self.engine = LmdbEngine(self.folder / "store")
        self.journal = Journal(time.time_ns, Recent(self.recent))
        self.engine.journal(self.journal.committed)

    def keep(self) -> None:
        """As a namenode does that has opened its store."""
        self.journal.keep(CLUSTER, EPOCH, 1, self.engine.history)

    @property
    def number(self) -> int:
        return self.engine.history.head.number

    def commit(self, key: bytes, value: bytes | None) -> None:
        def change(txn: Txn) -> None:
            txn.put(b"last", b"%d" % (self.number + 1))
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, value)

        asyncio.run(self.engine.transact(change))
        self.states[self.number] = self.engine.read(everything)

    def kill(self) -> None:
        """What a process has written is written, when it ends."""
        self.engine.close()

    def restored(self, copied: int) -> tuple[int, State]:
        """What all that is kept leads to, from a copy that has the commits up to `copied`."""
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        found = as_journals(self.recent, out)
        names = set(found)
        if copied:
            names.add(files.FileName("checkpoint", EPOCH, 0, copied))
        chain = best_chain(names)
        if chain is None:
            return 0, {}
        state = dict(self.states[copied])
        for name in chain.journals:
            with found[name].open("rb") as file:
                header = files.check(file, name, CLUSTER)
                assert header.head is not None
                assert header.head.number == name.last
                file.seek(0)
                files.read_header(file)
                go_on(state, file)
        return chain.reach[1], state


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_that_was_acknowledged_is_missing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = Store(tmp_path_factory.mktemp("recent"))
    store.keep()
    copied = 0
    taken = 0
    for _ in range(data.draw(st.integers(1, 30))):
        act = data.draw(st.sampled_from(["commit", "commit", "commit", "take", "copy", "restart"]))
        if act == "commit":
            key = data.draw(st.sampled_from([b"a", b"b", b"c"]))
            store.commit(key, data.draw(st.one_of(st.none(), st.binary(max_size=20))))
        elif act == "take":
            store.journal.take()
            taken = store.number
        elif act == "copy" and taken:
            copied = taken
            store.journal.copied(EPOCH, copied)
        elif act == "restart":
            store.kill()
            store.start()
            store.keep()
    store.kill()
    assert store.restored(copied) == (store.number, store.states[store.number])
    kept = last_kept(store.recent, CLUSTER)
    assert kept in ((0, 0), (EPOCH, store.number)) or kept[1] <= copied
    assert last_kept(store.recent, "another") == (0, 0)


def test_what_is_copied_is_given_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep()
    for number in range(9):
        store.commit(b"a", b"%d" % number)
        store.journal.take()
    store.journal.copied(EPOCH, 4)
    assert len(list(store.recent.iterdir())) == 5
    store.kill()
    store.start()
    store.keep()
    assert len(list(store.recent.iterdir())) == 5
    store.journal.copied(EPOCH, store.number)
    assert list(store.recent.iterdir()) == []
    store.kill()


def test_what_belongs_to_an_earlier_epoch_is_given_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep()
    store.commit(b"a", b"1")
    store.journal.take()
    store.journal.keep(CLUSTER, EPOCH + 1, 1, store.engine.history)
    store.commit(b"a", b"2")
    store.journal.copied(EPOCH + 1, 1)
    assert [path.name[:6] for path in store.recent.iterdir()] == [f"{EPOCH + 1:06}"]
    store.kill()


def test_a_new_clusters_first_commit_is_kept_as_well(tmp_path: Path) -> None:
    """It was made before anybody knew whose the store is."""
    store = Store(tmp_path)
    store.commit(b"a", b"1")
    store.keep()
    store.commit(b"b", b"2")
    store.kill()
    assert store.restored(0) == (2, store.states[2])


def test_a_store_that_was_restored_is_not_kept_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.commit(b"a", b"x" * (2 << 20))
    store.keep()
    store.commit(b"b", b"2")
    store.kill()
    assert sum(path.stat().st_size for path in store.recent.iterdir()) < 1000
    assert store.restored(1) == (2, store.states[2])


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_cut_off_or_changed_what_is_read_is_right(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = Store(tmp_path)
    store.keep()
    for number in range(30):
        store.commit(b"%d" % (number % 7), b"%d" % number)
        if number % 8 == 7:
            store.journal.take()
    store.kill()
    path = chance.choice(sorted(store.recent.iterdir()))
    data = bytearray(path.read_bytes())
    if seed % 2:
        del data[chance.randrange(len(data)) :]
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    reached, state = store.restored(0)
    assert state == store.states[reached]


def test_a_full_disk_is_made_up_for_when_a_datanode_has_the_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    store.keep()
    store.commit(b"a", b"1")
    with monkeypatch.context() as patch:
        patch.setattr(recents, "BYTES_MAX", 10)
        store.commit(b"a", b"2")
        store.commit(b"a", b"3")
    store.commit(b"a", b"4")  # there is room again, and a gap
    assert "commits are not kept" in caplog.text
    assert store.restored(0) == (1, store.states[1])
    store.journal.take()
    store.journal.copied(EPOCH, 4)
    store.commit(b"a", b"5")
    store.kill()
    assert store.restored(4) == (5, store.states[5])


def test_files_that_go_on_from_another_past_say_so(tmp_path: Path) -> None:
    """Two stores that parted: the numbers go on from one another, the hashes do not."""
    store = Store(tmp_path / "one")
    store.keep()
    store.commit(b"a", b"1")
    store.journal.take()
    store.commit(b"a", b"2")
    store.kill()
    out = tmp_path / "out"
    out.mkdir()
    headers: list[Header] = []
    for _, path in sorted(as_journals(store.recent, out).items(), key=lambda item: (item[0].last, item[0].first)):
        with path.open("rb") as file:
            headers.append(files.read_header(file))
    assert [header.kind for header in headers] == ["checkpoint", "journal", "journal"]
    assert headers[1].head is not None
    assert headers[2].before == headers[1].head.chain
