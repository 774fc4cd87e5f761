"""Each commit of every engine is recorded with its run, its number, and what the store adds up to."""

from __future__ import annotations

import asyncio
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfslib.errors import InputOutput
from dfslib.namenode.metadata.engine import KEY_MAX, MetadataEngine, Txn, Writes
from dfslib.namenode.metadata.history import UNKNOWN_RUN, Place, place_of
from dfslib.namenode.metadata.lineage import (
    LINEAGE,
    OWN_KEYS,
    RUNS,
    RUNS_MAX,
    Digest,
    decode_lineage,
    lineage_of,
    runs_of,
    scan_digest,
)
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from tests.interleaving import memory_engine

ENGINES: dict[str, Callable[[Path], MetadataEngine]] = {
    "memory": lambda _: MemoryEngine(),
    "memory by chance": lambda _: memory_engine(),
    "lmdb": LmdbEngine,
}
KINDS = pytest.mark.parametrize("kind", ENGINES)
Change = dict[bytes, bytes | None]


@contextmanager
def opened(kind: str) -> Iterator[MetadataEngine]:
    with tempfile.TemporaryDirectory() as folder:
        engine = ENGINES[kind](Path(folder) / "db")
        try:
            yield engine
        finally:
            engine.close()


def write(engine: MetadataEngine, *changes: Change) -> None:
    """At once, so that an engine may make one commit of them."""

    def transaction(change: Change) -> Callable[[Txn], None]:
        def run(txn: Txn) -> None:
            for key, value in change.items():
                if value is None:
                    txn.delete(key)
                else:
                    txn.put(key, value)

        return run

    async def all_of_them() -> None:
        await asyncio.gather(*(engine.transact(transaction(change)) for change in changes))

    asyncio.run(all_of_them())


def added_up(engine: MetadataEngine) -> bytes:
    return engine.read(scan_digest)


KEYS = st.sampled_from([b"a", b"a\0", b"b", b"c" * KEY_MAX, b"\0", b"\xff", b"sk", b"skruns\0"])
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=4)


@KINDS
def test_the_digest_is_always_what_the_keys_add_up_to(kind: str) -> None:
    with opened(kind) as engine:

        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(st.lists(CHANGES, max_size=3), max_size=6))
        def compare(groups: list[list[Change]]) -> None:
            for group in groups:
                write(engine, *group)
                head = engine.history.head
                assert engine.read(lambda txn: (txn.number, txn.number and lineage_of(txn))) == (
                    head.number,
                    head.number and head,
                )
                assert added_up(engine) == head.digest
                digest = Digest()
                for key, value in engine.read(lambda txn: dict(txn.scan(b"", b"\xff" * KEY_MAX))).items():
                    digest.change(key, None, value)
                assert digest.value == head.digest

        compare()


@KINDS
def test_what_is_not_as_it_was_written_does_not_add_up(kind: str) -> None:
    with opened(kind) as engine:
        write(engine, {b"a": b"1", b"b": b"2"})
        good = engine.history.head.digest
        others: list[dict[bytes, bytes]] = [
            {b"a": b"1"},
            {b"a": b"2", b"b": b"1"},
            {b"a": b"1", b"b": b"2", b"c": b""},
            {b"a1": b"", b"b": b"2"},
        ]
        for changed in others:
            digest = Digest()
            for key, value in changed.items():
                digest.change(key, None, value)
            assert digest.value != good


@KINDS
def test_every_commit_has_a_number_and_a_chain_and_one_that_changes_nothing_none(kind: str) -> None:
    with opened(kind) as engine:
        seen = [engine.history.head]
        changes: list[Change] = [{b"a": b"1"}, {b"a": b"1"}, {b"a": b"2"}, {b"a": None}, {b"b": b""}]
        for change in changes:
            write(engine, change)
            seen.append(engine.history.head)
        write(engine, {}, {b"no key": None})
        assert engine.history.head == seen[-1]
        assert [one.number for one in seen] == list(range(6))
        assert len({one.chain for one in seen}) == 6
        assert [run.first for run in engine.history.runs] == [1]
        assert engine.read(runs_of) == engine.history.runs


@KINDS
def test_listeners_are_told_the_records_and_watchers_are_not(kind: str) -> None:
    told: list[tuple[int, Writes]] = []
    watched: list[Writes] = []
    with opened(kind) as engine:
        engine.journal(lambda number, writes: told.append((number, writes)))
        engine.watch(lambda each: watched.extend(writes for _, writes in each))
        write(engine, {b"a": b"1"})
        write(engine, {b"b": b"1"})
        assert [set(writes) for _, writes in told] == [{b"a", *OWN_KEYS}, {b"b", LINEAGE}]
        assert watched == [{b"a": b"1"}, {b"b": b"1"}]
        record = told[-1][1][LINEAGE]
        assert record is not None
        assert decode_lineage(record) == engine.history.head


@KINDS
@pytest.mark.parametrize("key", OWN_KEYS)
def test_nobody_else_writes_the_records(kind: str, key: bytes) -> None:
    with opened(kind) as engine:
        for value in (b"x", None):
            with pytest.raises(ValueError, match="engine alone"):
                write(engine, {key: value})
        assert engine.history.head.number == 0


# LMDB: over restarts


def test_a_restart_begins_a_run_with_its_first_commit(tmp_path: Path) -> None:
    runs = []
    for number in range(3):
        engine = LmdbEngine(tmp_path)
        before = engine.history
        assert engine.history.head.number == number
        write(engine, {b"k": b"%d" % number})
        assert engine.history.runs[:-1] == before.runs
        assert engine.history.runs[-1].before == before.head.chain
        runs.append(engine.history.head.run)
        engine.close()
        LmdbEngine(tmp_path).close()  # one that commits nothing leaves no trace
    assert len(set(runs)) == 3
    engine = LmdbEngine(tmp_path)
    assert [run.id for run in engine.history.runs] == runs
    assert added_up(engine) == engine.history.head.digest
    engine.close()


def test_two_copies_that_go_on_have_parted(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "a")
    write(engine, {b"k": b"1"})
    engine._env.copy(str(made(tmp_path / "b")))
    common = engine.history.head
    engine.close()
    heads = []
    for name in "ab":
        engine = LmdbEngine(tmp_path / name)
        assert engine.history.head == common
        write(engine, {b"k": b"2"})
        heads.append(engine.history)
        engine.close()
    a, b = heads
    assert a.head.number == b.head.number
    assert place_of(a.head.run, a.head.number, a.head.chain, b) is Place.APART
    assert place_of(common.run, common.number, common.chain, b) is Place.PAST


def made(path: Path) -> Path:
    path.mkdir()
    return path


def by_a_release_without_lineage(path: Path, change: dict[bytes, bytes]) -> None:
    with lmdb.open(str(path), map_size=1 << 30) as env, env.begin(write=True) as txn:
        for key, value in change.items():
            txn.put(key, value)


def test_what_a_release_without_lineage_did_is_an_unknown_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = LmdbEngine(tmp_path)
    write(engine, {b"a": b"1"})
    known = engine.history.head
    engine.close()
    by_a_release_without_lineage(tmp_path, {b"a": b"2", b"b": b"1"})
    by_a_release_without_lineage(tmp_path, {b"c": b"2"})
    engine = LmdbEngine(tmp_path)
    assert "lineage of the metadata begins" in caplog.text
    assert engine.read(lineage_of) is None
    assert engine.history.head.number == 3
    assert added_up(engine) == engine.history.head.digest
    assert [(run.first, run.before) for run in engine.history.runs] == [(1, bytes(16)), (2, known.chain)]
    assert place_of(known.run, known.number, known.chain, engine.history) is Place.PAST
    assert place_of(known.run, 2, b"", engine.history) is Place.APART
    write(engine, {b"d": b"1"})
    assert added_up(engine) == engine.history.head.digest
    assert [run.first for run in engine.history.runs] == [1, 2, 4]
    engine.close()


def test_a_store_of_a_release_without_lineage_is_taken_over(tmp_path: Path) -> None:
    by_a_release_without_lineage(tmp_path, {b"a": b"1"})
    engine = LmdbEngine(tmp_path)
    assert [run.id for run in engine.history.runs] == [UNKNOWN_RUN]
    write(engine, {b"a": b"2"})
    assert added_up(engine) == engine.history.head.digest
    history = engine.history
    engine.close()
    again = LmdbEngine(tmp_path)
    assert again.history == history
    again.close()


def test_a_compacted_copy_whose_numbers_begin_anew_has_no_known_past(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "a")
    for number in range(5):
        write(engine, {b"k": b"%d" % number})
    engine._env.copy(str(made(tmp_path / "b")), compact=True)
    head = engine.history.head
    engine.close()
    copy = LmdbEngine(tmp_path / "b")
    if copy.history.head.number != head.number:  # as this version of LMDB does it
        assert [run.id for run in copy.history.runs] == [UNKNOWN_RUN]
    assert copy.history.head.digest == head.digest == added_up(copy)
    copy.close()


def test_records_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for key in (LINEAGE, RUNS):
        folder = tmp_path / key.decode()
        engine = LmdbEngine(folder)
        write(engine, {b"k": b"1"})
        engine.close()
        by_a_release_without_lineage(folder, {key: b"\xc1"})
        with pytest.raises(InputOutput, match="cannot be read"):
            LmdbEngine(folder)


def test_the_runs_that_are_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RUNS_MAX * struct.calcsize("8s16sQ") < 100_000
    monkeypatch.setattr("dfslib.namenode.metadata.lineage.RUNS_MAX", 3)
    first = None
    for number in range(5):
        engine = LmdbEngine(tmp_path)
        write(engine, {b"k": b"%d" % number})
        first = first or engine.history.head
        assert len(engine.history.runs) == min(3, number + 1)
        assert place_of(first.run, first.number, first.chain, engine.history) is Place.PAST
        engine.close()
