"""What every metadata engine promises (metadata/engine.py), asked of each of them."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfslib.errors import NotFound, Unavailable
from dfslib.namenode.metadata.engine import KEY_MAX, MetadataEngine, ReadTxn, Txn, Writes, prefix_end
from dfslib.namenode.metadata.lineage import OWN_KEYS
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from tests.interleaving import memory_engine

T = TypeVar("T")


def seeded(seed: int) -> Callable[[Path], MetadataEngine]:
    return lambda _: MemoryEngine(random.Random(seed))


ENGINES: dict[str, Callable[[Path], MetadataEngine]] = {
    "lmdb": LmdbEngine,
    "memory": lambda _: MemoryEngine(),
    "memory by chance": lambda _: memory_engine(),
    **{f"memory by seed {seed}": seeded(seed) for seed in range(4)},
}


@contextmanager
def opened(kind: str) -> Iterator[MetadataEngine]:
    folder = Path(tempfile.mkdtemp())
    engine = ENGINES[kind](folder / "db")
    try:
        yield engine
    finally:
        engine.close()
        shutil.rmtree(folder)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[MetadataEngine]:
    with opened(request.param) as engine:
        yield engine


@pytest.fixture
def lmdb(tmp_path: Path) -> Iterator[LmdbEngine]:
    engine = LmdbEngine(tmp_path / "db")
    yield engine
    engine.close()


def users(items: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """But for what the engine keeps for itself."""
    return (item for item in items if item[0] not in OWN_KEYS)


def everything(engine: MetadataEngine) -> dict[bytes, bytes]:
    return engine.read(lambda txn: dict(users(txn.scan(b"", b"\xff" * KEY_MAX))))


def putting(key: bytes, value: bytes = b"") -> Callable[[Txn], bytes]:
    def put(txn: Txn) -> bytes:
        txn.put(key, value)
        return key

    return put


def getting(key: bytes) -> Callable[[ReadTxn], bytes | None]:
    return lambda txn: txn.get(key)


@asynccontextmanager
async def held(engine: LmdbEngine) -> AsyncIterator[None]:
    """The engine's writer is busy inside; so whatever is queued there becomes one group."""
    entered, release = threading.Event(), threading.Event()

    def wait(_: Txn) -> None:
        entered.set()
        release.wait()

    task = asyncio.create_task(engine.transact(wait))
    await asyncio.to_thread(entered.wait)
    try:
        yield
    finally:
        release.set()
        await task


async def started(*calls: asyncio.Future[T]) -> None:
    """Let tasks run to where they wait; the queue then has what they asked for."""
    await asyncio.sleep(0)
    assert not any(call.done() for call in calls)


# One transaction


def test_a_transaction_reads_its_own_writes_and_gives_its_result(engine: MetadataEngine) -> None:
    def fn(txn: Txn) -> str:
        assert txn.get(b"k") is None
        txn.put(b"k", b"1")
        assert txn.get(b"k") == b"1"
        txn.put(b"k", b"")
        assert txn.get(b"k") == b""
        assert list(txn.scan(b"k", b"l")) == [(b"k", b"")]
        txn.delete(b"k")
        assert txn.get(b"k") is None
        txn.delete(b"never there")
        txn.put(b"left", b"2")
        return "result"

    assert asyncio.run(engine.transact(fn)) == "result"
    assert everything(engine) == {b"left": b"2"}


KEYS = st.sampled_from([b"a", b"a\0", b"a\xff", b"b", b"b\xff\xff", b"c" * KEY_MAX, b"\0", b"\xff"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=2)),
        st.tuples(st.just("delete"), KEYS, st.just(b"")),
        st.tuples(st.just("scan"), KEYS, KEYS),
        st.tuples(st.just("delete while scanning"), KEYS, KEYS),
        st.tuples(st.just("put while scanning"), KEYS, KEYS),
    ),
    max_size=25,
)


@pytest.mark.parametrize("kind", ENGINES)
def test_scans_and_writes_are_as_a_dictionary_has_them(kind: str) -> None:
    with opened(kind) as engine, asyncio.Runner() as runner:

        @settings(max_examples=200, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
        @given(before=st.dictionaries(KEYS, st.binary(max_size=2)), operations=OPERATIONS)
        def compare(before: dict[bytes, bytes], operations: list[tuple[str, bytes, bytes]]) -> None:
            def reset(txn: Txn) -> None:
                for key, _ in users(txn.scan(b"", b"\xff\xff")):
                    txn.delete(key)
                for key, value in before.items():
                    txn.put(key, value)

            runner.run(engine.transact(reset))
            model = dict(before)
            runner.run(engine.transact(lambda txn: apply(txn, model, operations)))
            assert everything(engine) == model

        compare()


def apply(txn: Txn, model: dict[bytes, bytes], operations: list[tuple[str, bytes, bytes]]) -> None:
    for what, one, other in operations:
        if what == "put":
            txn.put(one, other)
            model[one] = other
        elif what == "delete":
            txn.delete(one)
            model.pop(one, None)
        else:
            expected = sorted((key, value) for key, value in model.items() if one <= key < other)
            found = []
            for key, value in users(txn.scan(one, other)):
                found.append((key, value))
                if what == "delete while scanning":
                    txn.delete(key)
                    model.pop(key, None)
                elif what == "put while scanning":
                    for changed in (key, one, (key + b"+")[:KEY_MAX]):
                        txn.put(changed, b"new")
                        model[changed] = b"new"
            assert found == expected
        assert all(txn.get(key) == model.get(key) for key in (one, other) if key)


def test_a_scan_ends_before_its_end_and_ranges_may_be_empty(engine: MetadataEngine) -> None:
    async def fill() -> None:
        for key in (b"a", b"b", b"ba", b"c"):
            await engine.transact(putting(key))

    asyncio.run(fill())

    def names(start: bytes, end: bytes) -> list[bytes]:
        return engine.read(lambda txn: [key for key, _ in txn.scan(start, end)])

    assert names(b"b", prefix_end(b"b")) == [b"b", b"ba"]
    assert names(b"b", b"b") == names(b"c", b"a") == names(b"d", b"e") == []


@pytest.mark.parametrize("key", [b"", b"k" * (KEY_MAX + 1)])
def test_a_key_that_no_engine_can_keep_is_refused_alone(engine: MetadataEngine, key: bytes) -> None:
    async def run() -> list[object]:
        calls = [engine.transact(putting(k)) for k in (b"a", key, b"b")]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, refused, second = asyncio.run(run())
    assert (first, second) == (b"a", b"b")
    assert isinstance(refused, ValueError)
    assert everything(engine) == {b"a": b"", b"b": b""}


def test_prefix_end_is_behind_all_that_starts_so() -> None:
    assert prefix_end(b"a") == b"b"
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"a\0") == b"a\1"


# Several


class Abort(BaseException):
    """No Exception, as what test runners stop with is none."""


@pytest.mark.parametrize("error", [NotFound("gone"), StopIteration(), KeyError("k"), Abort()], ids=repr)
def test_what_raises_fails_alone_and_leaves_nothing(engine: MetadataEngine, error: Exception) -> None:
    def fail(txn: Txn) -> None:
        txn.put(b"half", b"")
        txn.delete(b"0")
        raise error

    async def run() -> list[object]:
        calls = [engine.transact(fail if n == 5 else putting(b"%d" % n)) for n in range(10)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(run())
    raised = results.pop(5)
    assert raised is error or (isinstance(error, StopIteration) and isinstance(raised, RuntimeError))
    assert results == [b"%d" % n for n in range(10) if n != 5]
    assert sorted(everything(engine)) == results


def test_concurrent_transactions_are_serial(engine: MetadataEngine) -> None:
    def increment(txn: Txn) -> int:
        value = int(txn.get(b"n") or b"0") + 1
        txn.put(b"n", b"%d" % value)
        return value

    async def run() -> list[int]:
        return await asyncio.gather(*(engine.transact(increment) for _ in range(100)))

    assert asyncio.run(run()) == list(range(1, 101))
    assert everything(engine) == {b"n": b"100"}


def test_what_is_asked_for_later_sees_what_was_before_or_that_is_never_done(engine: MetadataEngine) -> None:
    """Though nobody waits for it any more: so a transaction tells what became of one whose caller was cancelled."""

    async def run() -> None:
        for number in range(30):
            key = b"%d" % number
            gone = asyncio.create_task(engine.transact(putting(key)))
            await asyncio.sleep(0)
            asked = asyncio.create_task(engine.transact(getting(key)))
            await asyncio.sleep(0)
            gone.cancel()
            seen = await asked
            await asyncio.gather(gone, return_exceptions=True)
            for _ in range(5):
                assert engine.read(getting(key)) == seen
                await engine.transact(putting(b"other", key))

    asyncio.run(run())


def test_a_read_sees_one_state_whatever_is_committed_meanwhile(engine: MetadataEngine) -> None:
    asyncio.run(engine.transact(putting(b"a", b"old")))
    looked, committed = threading.Event(), threading.Event()

    def look(txn: ReadTxn) -> list[object]:
        scan = users(txn.scan(b"a", b"z"))
        seen: list[object] = [next(scan)]
        looked.set()
        committed.wait()
        return [*seen, *scan, txn.get(b"a"), txn.get(b"b"), list(users(txn.scan(b"", b"z")))]

    async def run() -> list[object]:
        reader = asyncio.create_task(asyncio.to_thread(engine.read, look))
        await asyncio.to_thread(looked.wait)
        await engine.transact(putting(b"a", b"new"))
        await engine.transact(putting(b"b", b"new"))
        committed.set()
        return await reader

    assert asyncio.run(run()) == [(b"a", b"old"), b"old", None, [(b"a", b"old")]]
    assert everything(engine) == {b"a": b"new", b"b": b"new"}


def test_a_read_gives_the_result_or_the_error_of_its_function(engine: MetadataEngine) -> None:
    def fail(_: ReadTxn) -> None:
        raise NotFound

    assert engine.read(lambda _: 7) == 7
    with pytest.raises(NotFound):
        engine.read(fail)


def test_a_closed_engine_says_so(engine: MetadataEngine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(Unavailable):
        asyncio.run(engine.transact(putting(b"a")))
    with pytest.raises(Unavailable):
        engine.read(lambda txn: txn.get(b"a"))


def test_a_read_that_runs_ends_well_though_the_engine_is_closed(engine: MetadataEngine) -> None:
    """Nobody can stop a read in a thread, and a store must not go from under it."""
    asyncio.run(engine.transact(putting(b"a", b"1")))
    looked, refused = threading.Event(), threading.Event()

    def look(txn: ReadTxn) -> list[object]:
        scan = users(txn.scan(b"a", b"z"))
        looked.set()
        refused.wait()
        return [txn.get(b"a"), *scan]

    async def until_refused() -> None:
        while True:
            try:
                await engine.transact(lambda _: None)
            except Unavailable:
                return

    async def run() -> list[object]:
        reader = asyncio.create_task(asyncio.to_thread(engine.read, look))
        await asyncio.to_thread(looked.wait)
        closing = asyncio.get_running_loop().run_in_executor(None, engine.close)
        await until_refused()
        refused.set()
        await closing
        return await reader

    assert asyncio.run(run()) == [b"1", (b"a", b"1")]


# Those who are told of commits


def test_one_who_fails_takes_nothing_from_the_other_nor_from_the_caller(
    engine: MetadataEngine, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []

    def failing(*_: object) -> None:
        told.append("failing")
        raise OSError("this listener is broken")

    def journal(number: int, writes: Writes) -> None:
        told.append((number, {key: value for key, value in writes.items() if key not in OWN_KEYS}))

    def watch(transactions: Sequence[tuple[object, Writes]]) -> None:
        told.extend((by, dict(writes)) for by, writes in transactions)

    def logged() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.exc_info and record.levelname == "ERROR"]
        caplog.clear()
        return found

    engine.journal(failing)
    engine.watch(watch)
    assert asyncio.run(engine.transact(putting(b"a"), "one")) == b"a"
    assert told == ["failing", ("one", {b"a": b""})]
    assert [text.split(" of ")[0] for text in logged()] == ["the journal"]
    told.clear()
    engine.journal(journal)
    engine.watch(failing)
    assert asyncio.run(engine.transact(putting(b"b"), "two")) == b"b"
    assert told == [(engine.read(lambda txn: txn.number), {b"b": b""}), "failing"]
    assert [text.split(" of ")[0] for text in logged()] == ["the watch"]
    assert everything(engine) == {b"a": b"", b"b": b""}


def test_who_watches_is_told_before_who_waits_is_answered(engine: MetadataEngine) -> None:
    told: list[object] = []
    engine.watch(lambda transactions: told.extend(by for by, _ in transactions))

    async def change(number: int) -> None:
        await engine.transact(putting(b"%d" % number), number)
        assert number in told

    async def run() -> None:
        await asyncio.gather(*(change(number) for number in range(50)))

    asyncio.run(run())
    assert told == list(range(50))


# LMDB: groups, and what survives


def test_a_group_is_committed_together_and_each_sees_the_ones_before(lmdb: LmdbEngine) -> None:
    def fail(txn: Txn) -> None:
        assert txn.get(b"0") == b""
        txn.put(b"half", b"")
        raise NotFound

    async def run() -> list[object]:
        async with held(lmdb):
            calls = [asyncio.create_task(lmdb.transact(fn)) for fn in (putting(b"0"), fail, putting(b"1"))]
            await started(*calls)
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(run())
    assert results[::2] == [b"0", b"1"]
    assert isinstance(results[1], NotFound)
    assert sorted(everything(lmdb)) == [b"0", b"1"]


def test_a_cancelled_caller_disturbs_nobody(lmdb: LmdbEngine) -> None:
    async def run() -> list[object]:
        async with held(lmdb):
            calls = [asyncio.create_task(lmdb.transact(putting(b"%d" % n))) for n in range(3)]
            await started(*calls)
            calls[1].cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    first, cancelled, last = asyncio.run(run())
    assert (first, last) == (b"0", b"2")
    assert isinstance(cancelled, asyncio.CancelledError)
    assert {b"0", b"2"} <= everything(lmdb).keys()


def test_callers_whose_loop_is_gone_disturb_nobody(lmdb: LmdbEngine, caplog: pytest.LogCaptureFixture) -> None:
    entered, release = threading.Event(), threading.Event()

    def wait(_: Txn) -> None:
        entered.set()
        release.wait()

    async def leave() -> None:
        gone = asyncio.create_task(lmdb.transact(wait))
        await asyncio.to_thread(entered.wait)
        assert not gone.done()

    asyncio.run(leave())
    release.set()
    assert asyncio.run(lmdb.transact(putting(b"a"))) == b"a"
    assert "no receiver" in caplog.text


def test_close_finishes_what_was_queued(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)

    async def run() -> list[bytes]:
        async with held(engine):
            calls = [asyncio.create_task(engine.transact(putting(b"%d" % n))) for n in range(50)]
            await started(*calls)
            closing = asyncio.create_task(asyncio.to_thread(engine.close))
            await asyncio.sleep(0)
        await closing
        return await asyncio.gather(*calls)

    results = asyncio.run(run())
    assert results == [b"%d" % n for n in range(50)]
    again = LmdbEngine(tmp_path)
    assert everything(again).keys() == set(results)
    again.close()


def test_one_folder_has_one_engine(tmp_path: Path) -> None:
    first = LmdbEngine(tmp_path / "db")
    with pytest.raises(Unavailable, match="in use") as refused:
        LmdbEngine(tmp_path / "db")
    assert refused.value.path == str(tmp_path / "db")
    assert asyncio.run(first.transact(putting(b"still works"))) == b"still works"
    first.close()
    LmdbEngine(tmp_path / "db").close()


def test_a_folder_that_cannot_be_opened_is_let_go_of(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").mkdir()
    with pytest.raises(Exception, match=r"data\.mdb|Is a directory"):
        LmdbEngine(tmp_path)
    (tmp_path / "data.mdb").rmdir()
    LmdbEngine(tmp_path).close()


def test_commits_are_synced_to_the_disk(lmdb: LmdbEngine) -> None:
    """What SIGKILL cannot show, since the kernel keeps what a process wrote: only losing power could."""
    flags = lmdb._env.flags()
    assert flags["sync"] and flags["metasync"] and not flags["writemap"] and not flags["map_async"]


def test_all_that_was_acknowledged_is_there_after_sigkill(tmp_path: Path) -> None:
    script = Path(__file__).with_name("acknowledge.py")
    command = [sys.executable, str(script), str(tmp_path / "db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(300)]
        process.kill()
        lines += process.stdout.readlines()
    acknowledged = [int(line) for line in lines if line.endswith("\n")]
    assert len(acknowledged) >= 300
    engine = LmdbEngine(tmp_path / "db")
    values = everything(engine)
    engine.close()
    assert [number for number in acknowledged if values.get(b"k%d" % number) != b"v%d" % number] == []
