"""The namespace on a real LMDB against the reference: the same operations, the same results or errors, the
same tree, and every invariant of the metadata after every step."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path as FolderPath
from typing import Any, NamedTuple, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dfslib.errors import DfsError, Exists, NotFound
from dfslib.model import (
    BLOCK_SIZE,
    FILE_SIZE_MAX,
    REPLICATION_ALL,
    ROOT,
    Attr,
    BlockId,
    BlockRef,
    Extent,
    FileType,
    InodeId,
    NodeId,
)
from dfslib.namenode.metadata.engine import ReadTxn, Txn
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace import content, extents, keys, lookup, records
from dfslib.namenode.namespace.attrs import AttrChange, set_attrs
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.copy import copy
from dfslib.namenode.namespace.create import NewInode, create, make_directories, make_root
from dfslib.namenode.namespace.link import link
from dfslib.namenode.namespace.rename import Name, exchange, rename
from dfslib.namenode.namespace.unlink import detach, free_orphans, reap, rmdir, unlink
from dfslib.namenode.namespace.xattr import list_xattrs, remove_xattr, set_xattr
from tests.model.reference_fs import Node, Path, ReferenceFs

T = TypeVar("T")

_MEMORY = FolderPath("/dev/shm")
"""Where commits cost no disk; durability has its own test."""

NAMES = [b"a", b"b", b"c", b"\xff\n", b"n" * 255]
TARGETS = [
    b"a", b"b/", b"..", b".", b"/", b"/a/b", b"../a", b"b/../c", b"a/.", b"c/", b"../c/", b"./c//a",
    b"n" * 256, b"", b"x" * 4096,
]  # fmt: skip
EDGES = [0, BLOCK_SIZE, 2 * BLOCK_SIZE]
MODES = st.sampled_from([0o755, 0o2775, 0o600])


class Piece(NamedTuple):
    """Bytes to be written: where, how many, and whether they begin a new block."""

    offset: int
    length: int
    new_block: bool


def block_byte(block: BlockId, offset: int) -> int:
    """What stands in a block: never zero, never the same in neighbours."""
    return (block * 37 + offset * 11) % 251 + 1


def existing(*kinds: FileType) -> st.SearchStrategy[Path]:
    """Paths that exist and are of these kinds; any path below an existing directory where there is none."""

    def of(machine: NamespaceModel) -> st.SearchStrategy[Path]:
        found = [path for path, node in machine.known.items() if path and (not kinds or node.type in kinds)]
        return st.sampled_from(found).map(Path) if found else NEW

    return st.runner().flatmap(of)


def _new(machine: NamespaceModel) -> st.SearchStrategy[Path]:
    """A name in an existing directory; the name is mostly free."""
    directories = [path for path, node in machine.known.items() if node.is_dir]
    return st.builds(lambda path, name: Path((*path, name)), st.sampled_from(directories), st.sampled_from(NAMES))


def _through_links(machine: NamespaceModel) -> st.SearchStrategy[Path]:
    """A name behind anything that exists, so also behind links, files, and directories that links lead to."""
    return st.builds(
        lambda path, names: Path((*path, *names)),
        st.sampled_from(list(machine.known)),
        st.lists(st.sampled_from([*NAMES[:3], b".."]), min_size=1, max_size=2),
    )


def _empty_directories(machine: NamespaceModel) -> st.SearchStrategy[Path]:
    found = [Path(path) for path, node in machine.known.items() if path and node.is_dir and not node.entries]
    return st.sampled_from(found) if found else NEW


def _with_xattrs(machine: NamespaceModel) -> st.SearchStrategy[tuple[Path, bytes]]:
    found = [(Path(path), name) for path, node in machine.known.items() for name in sorted(node.xattrs)]
    return st.sampled_from(found or [(Path(()), b"user.x")])


NEW = st.runner().flatmap(_new)
WILD = st.one_of(
    st.lists(st.sampled_from([*NAMES, b".."]), max_size=4).map(lambda names: Path(tuple(names))),
    st.runner().flatmap(_through_links),
)
FILES = st.one_of(existing(FileType.FILE), existing(FileType.FILE), existing(FileType.FILE), existing(), WILD)
DIRECTORIES = st.one_of(existing(FileType.DIRECTORY), existing(FileType.DIRECTORY), WILD)
ENTRIES = st.one_of(existing(), existing(), existing(), NEW, WILD)
FREE = st.one_of(NEW, NEW, WILD)
"""Mostly where nothing is."""
EMPTY = st.runner().flatmap(_empty_directories)
ANYWHERE = st.one_of(existing(), NEW, WILD)
PATHS = st.builds(
    lambda path, must_be_dir: Path(path.names, must_be_dir), ENTRIES, st.sampled_from([False, False, False, True])
)
OFFSETS = st.builds(lambda edge, by: max(0, edge + by), st.sampled_from(EDGES), st.integers(-24, 24))
ANY_OFFSETS = st.one_of(OFFSETS, OFFSETS, OFFSETS, st.sampled_from([-1, FILE_SIZE_MAX - 9, FILE_SIZE_MAX + 1, 1 << 70]))
"""With some where no byte can be."""
PIECES = st.lists(
    st.builds(Piece, st.integers(0, 40), st.integers(1, 30), st.booleans()), min_size=0, max_size=3
)  # fmt: skip


class NamespaceModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = FolderPath(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
        self.engine = LmdbEngine(self.folder / "db")
        self.runner = asyncio.Runner()
        self.now = 1_000_000
        self.reaped_at: set[int] = set()
        self.blocks = 0
        self.known: dict[tuple[bytes, ...], Node] = {}
        """What there is: for the strategies."""

    def teardown(self) -> None:
        self.engine.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    @initialize(furnished=st.booleans())
    def make_root(self, furnished: bool) -> None:
        """An empty root, or one with something of everything, so that short runs get far."""
        self.reference = ReferenceFs(self.now)
        self.transact(lambda txn: make_root(txn, self.now))
        self.known[()] = self.reference.root
        if furnished:
            self.mkdir_parents(Path((b"a", b"b", b"a")))
            self.mkdir_parents(Path((b"b", b"c")))
            self.create_file(Path((b"a", b"c")), FileType.FILE, 0o640, 0)
            self.create_file(Path((b"c",)), FileType.FILE, 0o640, 0)
            self.write(Path((b"c",)), BLOCK_SIZE - 10, [Piece(0, 30, True), Piece(35, 5, False)])
            self.link(Path((b"c",)), Path((b"b", b"c", b"b")))
            self.symlink(Path((b"b", b"a")), b"../a")
            self.symlink(Path((b"a", b"\xff\n")), b"../c/")
            self.mkdir(Path((b"a", b"b", b"b")), 0o2775, 2)
            self.set_xattr(Path((b"c",)), b"user.x", b"1", False, False)
            self.set_replication(Path((b"b", b"c")), b"3")
            self.symlink(Path((b"n" * 255,)), b"/b/c/c")

    def transact(self, fn: Callable[[Txn], T]) -> T:
        def run(txn: Txn) -> T:
            result = fn(txn)
            while free_orphans(txn, 1, ()):  # nobody has anything open here; see test_orphans.py
                pass
            return result

        return self.runner.run(self.engine.transact(run))

    def both(self, expected: Callable[[], Node | None], fn: Callable[[Txn], Any]) -> None:
        """The same operation on both; the same error, or the same inode."""
        node = result = expected_error = error = None
        try:
            node = expected()
        except DfsError as raised:
            expected_error = raised
        try:
            result = self.transact(fn)
        except DfsError as raised:
            error = raised
        assert type(error) is type(expected_error), (error, expected_error)
        if node is not None and isinstance(result, Attr):
            self.same_node(node, result)
        self.now += 1000

    @rule(by=st.integers(1, 5))
    def clock_goes_back(self, by: int) -> None:
        self.now -= by * 1000

    # Making

    @rule(
        path=st.one_of(FREE, existing(FileType.SYMLINK)),
        kind=st.sampled_from([FileType.FILE, FileType.FILE, FileType.FIFO]),
        mode=MODES,
        gid=st.integers(0, 2),
    )
    def create_file(self, path: Path, kind: FileType, mode: int, gid: int) -> None:
        new = NewInode(type=kind, mode=mode, uid=7, gid=gid)
        self.both(
            lambda: self.reference.make(path, Node(kind, mode, 7, gid), self.now, follow=True),
            lambda txn: self.create(txn, path, new, follow=True),
        )

    @rule(path=FREE, mode=MODES, gid=st.integers(0, 2))
    def mkdir(self, path: Path, mode: int, gid: int) -> None:
        new = NewInode(type=FileType.DIRECTORY, mode=mode, gid=gid)
        self.both(
            lambda: self.reference.make(path, Node(FileType.DIRECTORY, mode, 0, gid), self.now, follow=False),
            lambda txn: self.create(txn, path, new, follow=False),
        )

    @rule(path=FREE, points_to=st.sampled_from(TARGETS))
    def symlink(self, path: Path, points_to: bytes) -> None:
        new = NewInode(type=FileType.SYMLINK, mode=0o777, target=points_to)
        node = Node(FileType.SYMLINK, 0o777, target=points_to)
        self.both(
            lambda: self.reference.make(path, node, self.now, follow=False),
            lambda txn: self.create(txn, path, new, follow=False),
        )

    def create(self, txn: Txn, path: Path, new: NewInode, *, follow: bool) -> Attr:
        place = lookup.resolve(txn, lookup.Path(*path), follow=follow)
        if place.attr:
            raise Exists
        foreseen = None
        if lookup.resolve(txn, lookup.Path(*path), follow=False).attr is None:
            foreseen = lookup.nearest(txn, path.names).replication
        attr = create(txn, place.parent, place.name, new, self.now)
        assert foreseen in (None, attr.replication)
        return attr

    @rule(path=ANYWHERE)
    def mkdir_parents(self, path: Path) -> None:
        self.both(
            lambda: self.reference.make_directories(path.names, self.now),
            lambda txn: records.get_attr(txn, make_directories(txn, path.names, self.now)),
        )

    @rule(source=PATHS, to=FREE)
    def link(self, source: Path, to: Path) -> None:
        def fn(txn: Txn) -> Attr:
            attr = lookup.find(txn, lookup.Path(*source), follow=False)
            place = lookup.resolve(txn, lookup.Path(*to), follow=False)
            return link(txn, attr.ino, place.parent, place.name, self.now)

        self.both(lambda: self.reference.link(source, to, self.now), fn)

    # Removing

    @rule(path=FILES)
    def unlink(self, path: Path) -> None:
        self.both(
            lambda: self.reference.unlink(path, self.now),
            lambda txn: unlink(txn, *self.entry(txn, path), self.now),
        )

    @rule(path=st.one_of(DIRECTORIES, EMPTY))
    def rmdir(self, path: Path) -> None:
        self.both(
            lambda: self.reference.rmdir(path, self.now),
            lambda txn: rmdir(txn, *self.entry(txn, path), self.now),
        )

    @rule(path=DIRECTORIES)
    def detach(self, path: Path) -> None:
        self.both(
            lambda: self.reference.detach(path, self.now),
            lambda txn: detach(txn, *self.entry(txn, path), self.now),
        )

    @rule(limit=st.integers(1, 3))
    def reap_some(self, limit: int) -> None:
        before, done = self.names_cut_off(), self.transact(lambda txn: reap(txn, limit, self.now))
        assert done <= limit
        assert (done == 0) == (before == 0)
        self.reaped_at.add(self.now)
        self.now += 1000

    @rule(limit=st.integers(1, 4))
    def reap_all(self, limit: int) -> None:
        while self.transact(lambda txn: reap(txn, limit, self.now)):
            self.nothing_is_broken()
        assert self.names_cut_off() == 0
        self.reaped_at.add(self.now)
        self.now += 1000

    @rule()
    def collect_garbage(self) -> None:
        def fn(txn: Txn) -> None:
            for number, _ in records.scan_state(txn, keys.GARBAGE):
                records.delete_block(txn, BlockId(number))

        self.transact(fn)

    # Moving

    @rule(
        source=st.one_of(ENTRIES, existing(FileType.DIRECTORY)),
        to=st.one_of(ANYWHERE, EMPTY, existing(FileType.FILE)),
        noreplace=st.sampled_from([False, False, True]),
    )
    def rename(self, source: Path, to: Path, noreplace: bool) -> None:
        def fn(txn: Txn) -> None:
            old, new = self.entry(txn, source), self.entry(txn, to)
            rename(txn, old, new, self.now, noreplace=noreplace)

        self.both(lambda: self.reference.rename(source, to, self.now, noreplace=noreplace), fn)

    @rule(one=ENTRIES, other=ENTRIES)
    def exchange(self, one: Path, other: Path) -> None:
        self.both(
            lambda: self.reference.exchange(one, other, self.now),
            lambda txn: exchange(txn, self.entry(txn, one), self.entry(txn, other), self.now),
        )

    def entry(self, txn: Txn, path: Path) -> Name:
        place = lookup.resolve(txn, lookup.Path(*path), follow=False)
        return Name(place.parent, place.name)

    # Attributes

    @rule(
        path=PATHS,
        follow=st.booleans(),
        changes=st.fixed_dictionaries(
            {},
            optional={
                "mode": MODES,
                "uid": st.integers(0, 3),
                "gid": st.integers(0, 3),
                "atime_ns": st.sampled_from([-1, 0]),
                "mtime_ns": st.sampled_from([-(1 << 63), 0, (1 << 63) - 1]),
            },
        ),
    )
    def set_attrs(self, path: Path, follow: bool, changes: dict[str, int]) -> None:
        def fn(txn: Txn) -> Attr:
            ino = lookup.find(txn, lookup.Path(*path), follow=follow).ino
            return set_attrs(txn, ino, AttrChange(**changes), self.now)

        self.both(lambda: self.reference.set_attrs(path, changes, self.now, follow=follow), fn)

    @rule(
        path=PATHS,
        name=st.sampled_from([b"user.x", b"user.\xfe", b"other"]),
        value=st.binary(max_size=3),
        create=st.booleans(),
        replace=st.booleans(),
    )
    def set_xattr(self, path: Path, name: bytes, value: bytes, create: bool, replace: bool) -> None:
        def fn(txn: Txn) -> None:
            ino = lookup.find(txn, lookup.Path(*path)).ino
            set_xattr(txn, ino, name, value, self.now, create=create, replace_only=replace)

        self.both(
            lambda: self.reference.set_xattr(path, name, value, self.now, create=create, replace=replace),
            fn,
        )

    @rule(path=PATHS, value=st.sampled_from([b"all", b"1", b"3", b"many"]))
    def set_replication(self, path: Path, value: bytes) -> None:
        self.set_xattr(path, b"user.dfs.replication", value, False, False)

    @rule(path=PATHS, name=st.sampled_from([b"user.x", b"user.\xfe", b"user.dfs.replication"]))
    def remove_xattr(self, path: Path, name: bytes) -> None:
        self.both(
            lambda: self.reference.remove_xattr(path, name, self.now),
            lambda txn: remove_xattr(txn, lookup.find(txn, lookup.Path(*path)).ino, name, self.now) and None,
        )

    @rule(place=st.runner().flatmap(_with_xattrs))
    def remove_an_xattr(self, place: tuple[Path, bytes]) -> None:
        self.remove_xattr(*place)

    # Content

    def blocks_for(self, pieces: list[Piece]) -> tuple[list[BlockRef], list[Extent], list[tuple[int, bytes]]]:
        """The pieces in new blocks, as extents and as bytes; the blocks are larger than what they hold."""
        sizes: dict[BlockId, int] = {}
        laid: list[Extent] = []
        for piece in pieces:
            if piece.new_block or not sizes:
                self.blocks += 1
                sizes[BlockId(self.blocks)] = self.blocks % 3
            block = BlockId(self.blocks)
            laid.append(Extent(piece.offset, piece.length, block, sizes[block]))
            sizes[block] += piece.length
        refs = [BlockRef(block, size + 5, 0, (NodeId("n"),)) for block, size in sizes.items()]
        data = [(e.offset, bytes(block_byte(e.block, e.block_offset + i) for i in range(e.length))) for e in laid]
        return refs, laid, data

    def with_blocks(self, path: Path, refs: list[BlockRef], change: Callable[[Txn, InodeId], Attr]) -> Any:
        def fn(txn: Txn) -> Attr:
            ino = lookup.find(txn, lookup.Path(*path)).ino
            for ref in refs:
                extents.add_block(txn, ref)
            return change(txn, ino)

        return fn

    @rule(path=FILES, offset=OFFSETS, pieces=PIECES)
    def replace_content(self, path: Path, offset: int, pieces: list[Piece]) -> None:
        refs, laid, data = self.blocks_for([piece._replace(offset=piece.offset + offset) for piece in pieces])
        size = max([offset, *(extent.end for extent in laid)])
        self.both(
            lambda: self.reference.replace_content(path, size, data, self.now),
            self.with_blocks(path, refs, lambda txn, ino: content.replace_content(txn, ino, size, laid, self.now)),
        )

    @rule(path=FILES, offset=ANY_OFFSETS, pieces=PIECES)
    def write(self, path: Path, offset: int, pieces: list[Piece]) -> None:
        refs, laid, data = self.blocks_for(pieces)
        self.both(
            lambda: self.reference.write(path, offset, data, self.now),
            self.with_blocks(path, refs, lambda txn, ino: content.write_content(txn, ino, offset, laid, self.now)),
        )

    @rule(path=FILES, pieces=PIECES)
    def append(self, path: Path, pieces: list[Piece]) -> None:
        refs, laid, data = self.blocks_for(pieces)
        self.both(
            lambda: self.reference.append(path, data, self.now),
            self.with_blocks(path, refs, lambda txn, ino: content.append_content(txn, ino, laid, self.now)),
        )

    @rule(path=FILES, size=ANY_OFFSETS)
    def truncate(self, path: Path, size: int) -> None:
        self.both(
            lambda: self.reference.truncate(path, size, self.now),
            self.with_blocks(path, [], lambda txn, ino: content.truncate(txn, ino, size, self.now)),
        )

    @rule(source=FILES, to=ANYWHERE)
    def copy(self, source: Path, to: Path) -> None:
        def fn(txn: Txn) -> Attr:
            old = lookup.resolve(txn, lookup.Path(*source))
            if old.attr is None:
                raise NotFound
            return copy(txn, old, lookup.resolve(txn, lookup.Path(*to)), self.now)

        self.both(lambda: self.reference.copy(source, to, self.now), fn)

    # Looking

    @rule(path=PATHS, follow=st.booleans())
    def look_up(self, path: Path, follow: bool) -> None:
        self.both(
            lambda: self.reference.find(path, follow=follow),
            lambda txn: lookup.find(txn, lookup.Path(*path), follow=follow),
        )

    @rule(path=DIRECTORIES, after=st.sampled_from([b"", b"0", *NAMES]))
    def list_directory(self, path: Path, after: bytes) -> None:
        names: list[bytes] = []

        def fn(txn: Txn) -> None:
            directory = records.get_directory(txn, lookup.find(txn, lookup.Path(*path)).ino)
            names.extend(entry.name for entry in records.scan_entries(txn, directory.ino, after))

        expected: list[bytes] = []
        self.both(lambda: expected.extend(self.reference.list_names(path, after)), fn)
        assert names == expected

    @rule()
    def reopen(self) -> None:
        self.engine.close()
        self.engine = LmdbEngine(self.folder / "db")

    # Comparing

    @invariant()
    def nothing_is_broken(self) -> None:
        self.engine.read(lambda txn: self.assert_sound(txn))

    @invariant()
    def the_trees_are_equal(self) -> None:
        self.known = {}
        seen: dict[int, Node] = {}
        self.engine.read(lambda txn: self.compare(txn, self.reference.root, records.get_attr(txn, ROOT), (), seen))

    @staticmethod
    def assert_sound(txn: ReadTxn) -> None:
        assert list(check(txn)) == []

    def compare(self, txn: ReadTxn, node: Node, attr: Attr, path: tuple[bytes, ...], seen: dict[int, Node]) -> None:
        assert seen.setdefault(attr.ino, node) is node, path
        self.known[path] = node
        self.same_node(node, attr)
        self.same_links(txn, node, attr)
        assert list_xattrs(txn, attr.ino) == dict(sorted(node.xattrs.items()))
        if node.type is FileType.FILE:
            assert self.content(txn, attr.ino) == node.data
            assert attr.allocated == len(node.data)
        entries = list(records.scan_entries(txn, attr.ino))
        assert [entry.name for entry in entries] == sorted(node.entries)
        for entry in entries:
            self.compare(txn, node.entries[entry.name], entry.attr, (*path, entry.name), seen)

    def same_node(self, node: Node, attr: Attr) -> None:
        if node.ino is None:
            node.ino = attr.ino
        assert (node.ino, node.type, node.mode, node.uid, node.gid) == (
            attr.ino, attr.type, attr.mode, attr.uid, attr.gid,
        )  # fmt: skip
        assert (node.size, node.target, node.mtime_ns) == (attr.size, attr.target, attr.mtime_ns)
        assert node.atime_ns == attr.atime_ns
        if node.changes == node.seen_changes:
            assert node.seen_version == attr.version
        else:
            assert node.seen_version < attr.version, "a tag is used again for other content"
        node.seen_changes, node.seen_version = node.changes, attr.version
        replication = {b"all": REPLICATION_ALL}.get(node.xattrs.get(b"user.dfs.replication", b"0"))
        assert replication in (None, attr.replication)

    def same_links(self, txn: ReadTxn, node: Node, attr: Attr) -> None:
        """A name in a tree that was cut off counts until that is reaped, and then moves the ctime."""
        links, further = self.reference.nlink(node), self.reference.names_cut_off(node)
        if further and not node.is_dir:
            assert links <= attr.nlink <= links + further
            assert attr.ctime_ns in {node.ctime_ns, *self.reaped_at}
            node.ctime_ns = attr.ctime_ns
        else:
            assert (attr.nlink, attr.ctime_ns) == (links, node.ctime_ns)

    def content(self, txn: ReadTxn, ino: InodeId) -> dict[int, int]:
        return {
            extent.offset + index: block_byte(extent.block, extent.block_offset + index)
            for extent in content.read_extents(txn, ino)
            for index in range(extent.length)
        }

    def names_cut_off(self) -> int:
        return self.engine.read(lambda txn: sum(1 for _ in records.scan_state(txn, keys.DETACHED)))


NamespaceModel.TestCase.settings = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestNamespaceModel = NamespaceModel.TestCase
