"""The whole check of a store: whatever is done to its file is found, or changes nothing of what it holds."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dfslib.namenode.checkpoint import format as files
from dfslib.namenode.checkpoint.format import Header, name_of
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.lineage import LINEAGE, RUNS, decode_lineage
from dfslib.namenode.metadata.lmdb_engine import DATA, LmdbEngine
from dfslib.namenode.metadata.lmdb_file import LOCKS
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.records import RestoringRecord, Totals
from dfslib.namenode.verification.store_check import check_store
from tests.unit.namenode.stores import CLUSTER, HARMS, change_store, everything, harm_store, make_store

FILES = 60
ABOUT = Header("checkpoint", CLUSTER, 3, 0, 0, 123, nodes=("n1",))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "good"
    make_store(folder, FILES)
    return folder


def copy_of(good: Path, name: str) -> Path:
    folder = good.parent / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(good / DATA, folder / DATA)
    return folder


def content_after(folder: Path) -> tuple[int, dict[bytes, bytes]]:
    """All that it holds after it has been written on for a while, but for what tells runs apart."""
    engine = LmdbEngine(folder)
    change_store(engine, 30, FILES)
    number, found = engine.read(everything)
    engine.close()
    return number, {key: value for key, value in found.items() if key not in (LINEAGE, RUNS)}


def test_a_good_store_is_right(good: Path) -> None:
    verdict = check_store(good, at_rest=True)
    assert (verdict.damage, verdict.cluster_id, verdict.faults) == ("", CLUSTER, ())
    assert verdict.is_summed
    assert verdict.keys > FILES


@given(st.sampled_from(sorted(HARMS)), st.integers(0, 1 << 32))
@settings(max_examples=400, deadline=None)
def test_every_harm_is_found_or_changes_nothing(good: Path, name: str, seed: int) -> None:
    folder = copy_of(good, "harmed")
    harm_store(folder, HARMS[name], seed)
    if not check_store(folder, at_rest=True).damage:
        assert content_after(folder) == content_after(copy_of(good, "other"))
        assert check_store(folder, at_rest=True).damage == ""


@given(st.integers(0, 1 << 32))
@settings(max_examples=30, deadline=None)
def test_many_flipped_bits_are_found(good: Path, seed: int) -> None:
    folder = copy_of(good, "harmed")
    for number in range(100):
        harm_store(folder, HARMS["flip"], seed + number)
    if not check_store(folder, at_rest=True).damage:
        assert content_after(folder) == content_after(copy_of(good, "other"))


@pytest.mark.parametrize("size", [0, 1, 4096, 8192])
def test_what_is_too_short_is_damaged(good: Path, size: int) -> None:
    folder = copy_of(good, "short")
    data = (folder / DATA).read_bytes()
    (folder / DATA).write_bytes(data[:size])
    assert check_store(folder, at_rest=True).damage
    (folder / DATA).write_bytes(bytes(size))
    assert check_store(folder, at_rest=True).damage


def test_a_changed_value_that_can_be_read_is_found(good: Path, tmp_path: Path) -> None:
    """Under the engine, so that every page is right, and nothing but what the commits say tells."""
    import lmdb

    folder = copy_of(good, "changed")
    with lmdb.open(str(folder), map_size=1 << 30) as env, env.begin(write=True) as txn:
        found = records.encode(Totals(1, 2, 3))
        assert txn.put(keys.TOTALS, found)
        number = int(txn.id())
        data = txn.get(LINEAGE)
        assert data is not None
        assert txn.put(LINEAGE, records.encode(replace(decode_lineage(data), number=number)))
    assert "not what its commits made them" in check_store(folder, at_rest=True).damage


def test_a_store_without_a_digest_is_judged_by_its_invariants(good: Path) -> None:
    """As the release before leaves it, which wrote on without a lineage."""
    import lmdb

    folder = copy_of(good, "older")
    with lmdb.open(str(folder), map_size=1 << 30) as env, env.begin(write=True) as txn:
        txn.put(keys.REQUESTS + b"1", b"x")
        txn.put(keys.request_time(5, b"1"), records.encode(0))
    verdict = check_store(folder, at_rest=True)
    assert (verdict.damage, verdict.is_summed) == ("", False)
    with lmdb.open(str(folder), map_size=1 << 30) as env, env.begin(write=True) as txn:
        txn.put(keys.TOTALS, records.encode(Totals(1, 2, 3)))
    assert "totals" in check_store(folder, at_rest=True).damage


def test_what_we_have_written_wrongly_is_no_damage(good: Path) -> None:
    def break_rules(txn: Txn) -> None:
        txn.put(keys.TOTALS, records.encode(Totals(1, 2, 3)))

    folder = copy_of(good, "wrong")
    engine = LmdbEngine(folder)
    asyncio.run(engine.transact(break_rules))
    engine.close()
    verdict = check_store(folder, at_rest=True)
    assert verdict.damage == ""
    assert "totals" in verdict.faults[0]


def test_a_store_that_is_not_whole_is_right(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    asyncio.run(engine.transact(lambda txn: records.put_restoring(txn, RestoringRecord(CLUSTER))))
    engine.close()
    verdict = check_store(tmp_path, at_rest=True)
    assert (verdict.damage, verdict.cluster_id) == ("", CLUSTER)


def test_a_checkpoint_has_what_was_checked(good: Path, tmp_path: Path) -> None:
    folder = copy_of(good, "checked")
    path = tmp_path / "checkpoint"
    verdict = check_store(folder, at_rest=False, checkpoint=(ABOUT, path))
    assert verdict.damage == ""
    assert verdict.header is not None
    with path.open("rb") as file:
        assert files.check(file, name_of(verdict.header), CLUSTER) == verdict.header
    with path.open("rb") as file:
        files.read_header(file)
        found = dict(record for batch in files.read_records(file) for record in batch)
    assert len(found) == verdict.keys


@pytest.mark.parametrize("seed", range(20))
def test_no_checkpoint_is_left_of_a_damaged_store(good: Path, tmp_path: Path, seed: int) -> None:
    folder = copy_of(good, "checked")
    harm_store(folder, HARMS["change_a_name"], seed)
    (folder / LOCKS).unlink(missing_ok=True)
    path = tmp_path / "checkpoint"
    damage = check_store(folder, at_rest=False, checkpoint=(ABOUT, path)).damage
    assert path.exists() == (not damage)
