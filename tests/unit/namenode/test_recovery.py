"""A restore from datanodes' copies; real stores, files and HTTP. What does not belong together is not put together."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from dfslib.errors import InvalidArgument, Unavailable
from dfslib.model import ROOT, FileType, NodeId
from dfslib.namenode.checkpoint.branches import Branch
from dfslib.namenode.checkpoint.fetching import survey
from dfslib.namenode.checkpoint.format import (
    RUNS_KEPT,
    Commit,
    Encoder,
    FileName,
    Header,
    commit_of,
    lineage_in,
    name_of,
    parse_name,
    read_commits,
    read_header,
    read_records,
    run_begun_in,
)
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.recovery import recover
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn, Txn
from dfslib.namenode.metadata.lineage import OWN_KEYS
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.namespace.records import ClusterRecord
from dfslib.transfer.peer_session import PeerSession, open_peer_session
from dfslib.wire.positions import Position
from tests.unit.namenode.fake_datanode import FakeDatanode

FILE = NewInode(type=FileType.FILE, mode=0o644)
State = dict[bytes, bytes]


def everything(txn: ReadTxn) -> State:
    found = {bytes(key): bytes(value) for key, value in txn.scan(b"", b"\xff" * KEY_MAX)}
    changed = (keys.CLUSTER, keys.LAST_INODE, keys.RESTORED)  # by each restore
    return {key: value for key, value in found.items() if key not in OWN_KEYS and key not in changed}


class Source:
    """A store that goes on, and the files that a namenode would ship of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self._commits: list[Commit] = []
        self._before = b""
        self._open()

    def _open(self) -> None:
        self.engine = LmdbEngine(self.folder / "store")
        self.engine.journal(lambda number, writes: self._commits.append(commit_of(number, writes)))

    def begin(self) -> Source:
        def first(txn: Txn) -> None:
            records.put_cluster(txn, ClusterRecord("c1", 1))
            make_root(txn, 1)

        asyncio.run(self.engine.transact(first))
        return self

    def close(self) -> None:
        self.engine.close()

    def copy(self, folder: Path) -> Source:
        """As if the folder was copied to another machine, and opened there. This one is opened anew as well."""
        self.close()
        folder.mkdir(parents=True)
        shutil.copytree(self.folder / "store", folder / "store")
        self._open()
        return Source(folder)

    def write(self, *names: str) -> Source:
        for name in names:
            asyncio.run(self.engine.transact(lambda txn, name=name: create(txn, ROOT, name.encode(), FILE, 1)))  # type: ignore[misc]
        return self

    def _about(self, kind: str) -> Header:
        return Header(kind, "c1", 0, 0, 0, 1, nodes=("n0", "n1", "n2"))

    def checkpoint(self) -> str:
        path = self.folder / "file"
        header = self.engine.read(lambda txn: write_snapshot(txn, self._about("checkpoint"), path))
        self.files[str(name_of(header))] = path.read_bytes()
        return str(name_of(header))

    def journal(self) -> str:
        commits, self._commits = self._commits, []
        head = lineage_in(commits[-1])
        begun = run_begun_in(commits[0])
        header = replace(
            self._about("journal"), first=commits[0][0], last=commits[-1][0], head=head,
            runs=self.engine.history.runs[-RUNS_KEPT:], before=begun.before if begun else self._before,
        )  # fmt: skip
        assert head is not None
        self._before = head.chain
        return self.put(header, commits)

    def put(self, header: Header, commits: list[Commit]) -> str:
        encoder = Encoder()
        name = str(name_of(header))
        self.files[name] = encoder.header(header) + encoder.records(commits) + encoder.end()
        return name

    @property
    def state(self) -> State:
        return self.engine.read(everything)

    @property
    def position(self) -> Position:
        head = self.engine.history.head
        return Position(0, head.number, head.run, head.chain)


class Restored:
    def __init__(self, session: PeerSession, nodes: list[FakeDatanode], folder: Path) -> None:
        self.session = session
        self.nodes = nodes
        self.engine = LmdbEngine(folder / "restored")
        self.folder = folder
        self.here: dict[str, bytes] = {}
        """Files that lie here, of a store that was set aside."""

    def aside(self, target: Path) -> dict[FileName, Path]:
        found = {}
        for text, data in self.here.items():
            (target / text).write_bytes(data)
            name = parse_name(text)
            assert name is not None
            found[name] = target / text
        return found

    def joiners(self, *positions: str) -> list[Joiner]:
        told = [*positions, *[""] * len(self.nodes)]
        return [
            Joiner(NodeId(node.name), node.url, "c1", 0, 1, position)
            for node, position in zip(self.nodes, told, strict=False)
        ]

    async def restore(self, *positions: str) -> State:
        sources = self.joiners(*positions)
        folder = self.folder / "fetched"
        await recover(self.engine, self.session, sources, sources, folder, self.aside, lambda _: None)
        assert self.engine.read(lambda txn: list(check(txn))) == []
        return self.engine.read(everything)

    async def survey(self) -> list[Branch]:
        return await survey(self.session, self.joiners())


@asynccontextmanager
async def restored(folder: Path, *held: dict[str, bytes]) -> AsyncIterator[Restored]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(FakeDatanode(f"n{n}").running()) for n in range(len(held))]
        for node, files in zip(nodes, held, strict=True):
            node.files.update(files)
        session = open_peer_session()
        stack.push_async_callback(session.close)
        made = Restored(session, nodes, folder)
        stack.callback(made.engine.close)
        yield made


def run(folder: Path, scenario: Callable[[Restored], Awaitable[None]], *held: dict[str, bytes]) -> None:
    async def whole() -> None:
        async with restored(folder, *held) as made:
            await scenario(made)

    asyncio.run(whole())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    folder = tmp_path / "source"
    folder.mkdir()
    return Source(folder).begin()


def test_a_checkpoint_in_the_midst_of_a_journal_and_more_journals_from_several_datanodes(
    tmp_path: Path, source: Source
) -> None:
    source.write("a", "b")
    checkpoint = source.checkpoint()
    first = source.write("c").journal()  # it begins before the checkpoint
    second = source.write("d", "e").journal()
    files, state = source.files, source.state
    source.close()

    async def scenario(made: Restored) -> None:
        assert await made.restore() == state

    run(tmp_path, scenario, {checkpoint: files[checkpoint], second: files[second]}, {first: files[first]})


def parted_stores(source: Source, folder: Path) -> tuple[Source, Source]:
    """Two that went on from the same commits, with the same numbers."""
    source.write("common")
    source.checkpoint()
    source.journal()
    other = source.copy(folder)
    other.files.update(source.files)
    return source, other


def test_what_has_parted_is_not_put_together(tmp_path: Path, source: Source) -> None:
    one, other = parted_stores(source, tmp_path / "other")
    one.write("one").journal()
    other.write("x", "other").journal()
    states = [one.state, other.state]
    for store in (one, other):
        store.close()

    async def scenario(made: Restored) -> None:
        found = await made.survey()
        assert [branch.alone for branch in found] == [{"n1"}, {"n0"}]
        with pytest.raises(InvalidArgument, match=r"parted: commit .* on n1; commit .* on n0"):
            await made.restore()
        assert made.engine.history.head.number == 0
        nodes = made.nodes
        for number, state in enumerate(states):
            made.nodes = [nodes[number]]
            assert await made.restore() == state

    run(tmp_path, scenario, one.files, other.files)


def test_a_file_of_another_past_is_no_link_of_the_chain(tmp_path: Path, source: Source) -> None:
    """One of the same numbers, on a datanode whose newest copy is of the right past all the same."""
    one, other = parted_stores(source, tmp_path / "other")
    right = one.write("one").journal()
    assert other.write("two").journal() == right
    last = one.write("last").journal()
    files, state = one.files, one.state
    for store in (one, other):
        store.close()

    async def scenario(made: Restored) -> None:
        assert await made.restore() == state

    run(tmp_path, scenario, {**files, right: other.files[right]}, {right: files[right], last: files[last]})


def test_where_only_the_wrong_file_is_there_the_chain_ends_before_it(tmp_path: Path, source: Source) -> None:
    one, other = parted_stores(source, tmp_path / "other")
    before = one.state
    right = one.write("one").journal()
    other.write("two").journal()
    last = one.write("last").journal()
    files = {**one.files, right: other.files[right]}
    assert last in files
    for store in (one, other):
        store.close()

    async def scenario(made: Restored) -> None:
        assert await made.restore() == before

    run(tmp_path, scenario, files)


def test_a_journal_that_goes_on_from_another_commit_is_no_link(tmp_path: Path, source: Source) -> None:
    """As of a namenode whose memory was set back: it goes on under the same run, with the same numbers."""
    source.write("a")
    source.checkpoint()
    source.journal()
    before = source.state
    second = source.write("b").journal()
    state = source.state
    header, commits = read_journal(source.files[second])
    good = dict(source.files)
    source.put(replace(header, before=b"another one's..."), commits)
    bad = source.files
    source.close()

    async def alone(made: Restored) -> None:
        assert await made.restore() == before

    async def beside_the_right_one(made: Restored) -> None:
        assert await made.restore() == state

    run(tmp_path / "1", alone, bad)
    run(tmp_path / "2", beside_the_right_one, bad, good)


def test_what_lies_here_and_goes_on_from_the_copies_is_restored_as_well(tmp_path: Path, source: Source) -> None:
    """Of a store that was damaged: the datanodes have been told less than was acknowledged."""
    source.write("a")
    source.checkpoint()
    source.journal()
    told = dict(source.files)
    first = source.write("b").journal()
    between = source.state
    second = source.write("c").journal()
    state = source.state
    here = {name: source.files[name] for name in (first, second)}
    source.close()

    async def scenario(made: Restored) -> None:
        made.here = here
        assert await made.restore() == state
        made.here = {**here, second: here[second][:-20]}  # it cannot be read to its end
        assert await made.restore() == between
        made.here = {second: here[second]}  # there is a gap
        copied = await made.restore()
        made.here = {}
        assert copied == await made.restore()

    run(tmp_path, scenario, told, told)


def test_what_lies_here_is_enough_where_no_datanode_has_a_copy(tmp_path: Path, source: Source) -> None:
    source.write("a")
    source.checkpoint()
    source.journal()
    source.write("b").journal()
    files, state = source.files, source.state
    source.close()

    async def scenario(made: Restored) -> None:
        made.here = files
        assert await made.restore() == state

    run(tmp_path, scenario, {}, {})


def test_what_lies_here_and_has_parted_is_left_where_it_is(
    tmp_path: Path, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = parted_stores(source, tmp_path / "other")
    one.write("one").journal()
    mine = other.write("x", "other").journal()
    state = one.state
    for store in (one, other):
        store.close()

    async def scenario(made: Restored) -> None:
        made.here = {mine: other.files[mine]}
        assert await made.restore() == state
        assert "has parted from the copies" in caplog.text

    run(tmp_path, scenario, one.files)


def read_journal(data: bytes) -> tuple[Header, list[Commit]]:
    file = io.BytesIO(data)
    return read_header(file), [commit for frame in read_commits(file) for commit in frame]


def changed_journal(source: Source, name: str) -> bytes:
    """What a namenode would ship whose memory has gone bad: whole in itself, and not what it committed."""
    header, commits = read_journal(source.files[name])
    commits[0] = commits[0][0], [(key, b"\x07" if key == keys.TOTALS else value) for key, value in commits[0][1]]
    kept = dict(source.files)
    source.put(header, commits)
    changed, source.files = source.files[name], kept
    return changed


def test_a_file_that_does_not_lead_to_what_it_says_is_left_out(tmp_path: Path, source: Source) -> None:
    source.write("a")
    source.checkpoint()
    source.journal()
    before = source.state
    second = source.write("b").journal()
    bad = changed_journal(source, second)
    files, state = source.files, source.state
    source.close()

    async def only_the_bad_one(made: Restored) -> None:
        assert await made.restore() == before

    async def a_good_one_too(made: Restored) -> None:
        assert await made.restore() == state

    run(tmp_path / "1", only_the_bad_one, {**files, second: bad})
    run(tmp_path / "2", a_good_one_too, {**files, second: bad}, files)


def test_a_checkpoint_whose_keys_do_not_add_up_is_damaged(tmp_path: Path, source: Source) -> None:
    source.write("a")
    name = source.checkpoint()
    state = source.state
    path = source.folder / "bad"
    source.engine.read(lambda txn: write_snapshot(Lying(txn), Header("checkpoint", "c1", 0, 0, 0, 1), path))
    bad = path.read_bytes()
    source.close()

    async def alone(made: Restored) -> None:
        with pytest.raises(Unavailable, match="no complete copy"):
            await made.restore()
        assert made.engine.history.head.number == 0

    async def beside_a_good_one(made: Restored) -> None:
        assert await made.restore() == state

    run(tmp_path / "1", alone, {name: bad})
    run(tmp_path / "2", beside_a_good_one, {name: bad}, source.files)


class Lying:
    """A snapshot of a store in which a bit of a value has fallen over."""

    def __init__(self, txn: ReadTxn) -> None:
        self._txn = txn
        self.number = txn.number

    def get(self, key: bytes) -> bytes | None:
        return self._txn.get(key)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._txn.scan(start, end):
            yield key, (value[:-1] + bytes([value[-1] ^ 1]) if key == keys.LAST_INODE else value)


def test_an_epoch_later_than_what_any_datanode_was_brought(
    tmp_path: Path, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.write("a")
    source.checkpoint()
    files, state, position = source.files, source.state, source.position
    source.close()

    async def scenario(made: Restored) -> None:
        assert await made.restore(str(position), str(position._replace(epoch=5, number=99))) == state
        record = made.engine.read(records.get_cluster)
        assert record is not None
        assert record.epoch == 6

    run(tmp_path, scenario, files, files)
    assert "latest changes are damaged or gone" in caplog.text


def test_files_of_a_release_without_lineage_are_restored_as_before(tmp_path: Path, source: Source) -> None:
    source.write("a")
    source.checkpoint()
    source.journal()
    source.write("b").journal()
    state = source.state
    files = {name: without_lineage(name, data) for name, data in source.files.items()}
    source.close()

    async def scenario(made: Restored) -> None:
        assert await made.restore() == state

    run(tmp_path, scenario, files)


def without_lineage(name: str, data: bytes) -> bytes:
    file = io.BytesIO(data)
    header = replace(read_header(file), head=None, runs=(), before=b"")
    encoder = Encoder()
    parsed = parse_name(name)
    assert isinstance(parsed, FileName)
    parts = [encoder.header(header)]
    if parsed.is_checkpoint:
        for frame in read_records(file):
            parts.append(encoder.records([record for record in frame if record[0] not in OWN_KEYS]))
    else:
        for commits in read_commits(file):
            parts.append(
                encoder.records(
                    [(number, [item for item in changes if item[0] not in OWN_KEYS]) for number, changes in commits]
                )
            )
    return b"".join([*parts, encoder.end()])
