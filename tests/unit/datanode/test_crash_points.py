"""A block's way to the disk, stopped after every step: by the end of the process, and by the loss of power.

The steps are recorded from a real write; then each state that a disk may be in after any number of them is laid out
in a folder, and the store is opened on it. What was synced is there. What was not may be there, absent or torn.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_store import BlockStore
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock, write_batch
from dfslib.datanode.store.volume import Volume
from dfslib.errors import NotFound
from dfslib.model import BlockId

PAGE = 4096
SMALL, LARGE = os.urandom(5000), os.urandom((9 << 20) + 77)


class Inode:
    """A file's bytes: as programs see them, and as far as the disk surely has them."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.synced = b""


class State(NamedTuple):
    """What a disk may hold: contents by path."""

    what: str
    files: dict[Path, bytes]


class Disk:
    """Follows what the store does through `os`."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._fds: dict[int, Path] = {}
        self.names: dict[Path, Inode] = {}
        self.synced_names: dict[Path, Inode] = {}
        self.states: list[list[State]] = []
        """After each step."""
        for name in ("open", "close", "write", "writev", "fsync", "rename", "unlink"):
            monkeypatch.setattr(os, name, self._followed(getattr(os, name), getattr(self, f"_{name}", None)))

    def _followed(self, real: Callable[..., Any], note: Callable[..., None] | None) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            if note is not None:
                note(result, *args)
            return result

        return call

    def _open(self, fd: int, path: Any, flags: int = 0, *_: Any) -> None:
        if Path(path).is_relative_to(self._root):
            self._fds[fd] = Path(path)
            if flags & os.O_CREAT:
                self.names[Path(path)] = Inode()
                self._step(f"create {Path(path).name}")

    def _close(self, _: None, fd: int) -> None:
        self._fds.pop(fd, None)

    def _write(self, count: int, fd: int, data: Any) -> None:
        self._writev(count, fd, [data])

    def _writev(self, count: int, fd: int, pieces: Any) -> None:
        if fd in self._fds:
            self.names[self._fds[fd]].now += b"".join(bytes(memoryview(piece)) for piece in pieces)[:count]
            self._step(f"write {count}")

    def _fsync(self, _: None, fd: int) -> None:
        path = self._fds.get(fd)
        if path is None:
            return
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            for name in {*self.names, *self.synced_names}:
                if name.parent == path:
                    self.synced_names.pop(name, None)
                    if name in self.names:
                        self.synced_names[name] = self.names[name]
        else:
            self.names[path].synced = bytes(self.names[path].now)
        self._step(f"sync {path.name}")

    def _rename(self, _: None, source: Any, target: Any) -> None:
        if Path(source) in self.names:
            inode = self.names.pop(Path(source))
            self.names[Path(target)] = inode
            self._fds = {fd: Path(target) if path == Path(source) else path for fd, path in self._fds.items()}
            self._step(f"rename to {Path(target).name}")

    def _unlink(self, _: None, path: Any, **__: Any) -> None:
        if Path(path) in self.names:
            del self.names[Path(path)]
            self._step(f"unlink {Path(path).name}")

    def _step(self, what: str) -> None:
        self.states.append(list(self._possible(what)))

    def _possible(self, what: str) -> Iterator[State]:
        yield State(f"{what}; process ended", {path: bytes(inode.now) for path, inode in self.names.items()})
        for kind, names in (("synced", self.synced_names), ("all", self.names)):
            yield State(f"{what}; {kind} names, synced data", {path: inode.synced for path, inode in names.items()})
            more = {path: bytes(inode.now[len(inode.synced) :][:PAGE]) for path, inode in names.items()}
            torn = {path: inode.synced + more[path] for path, inode in names.items()}
            yield State(f"{what}; {kind} names, torn data", torn)
            zeros = {path: inode.synced.ljust(len(inode.now), b"\0") for path, inode in names.items()}
            yield State(f"{what}; {kind} names, zeros for data", zeros)


def write_one(store: BlockStore, blocks: dict[int, bytes]) -> None:
    for number, data in blocks.items():
        writer = BlockWriter(store, NewBlock(BlockId(number)), len(data))
        for start in range(0, len(data), 1 << 20):
            writer.write([data[start : start + (1 << 20)]])
        writer.finish()


def write_many(store: BlockStore, blocks: dict[int, bytes]) -> None:
    write_batch(store, [(NewBlock(BlockId(number)), data) for number, data in blocks.items()])


def write_aborted(store: BlockStore, blocks: dict[int, bytes]) -> None:
    for number, data in blocks.items():
        writer = BlockWriter(store, NewBlock(BlockId(number)), len(data))
        writer.write([data])
        writer.abort()


@pytest.mark.parametrize(
    ("write", "blocks", "acknowledged"),
    [
        (write_one, {1: SMALL}, True),
        (write_one, {1: LARGE}, True),
        (write_one, {1: b""}, True),
        (write_many, {1: SMALL, 2: SMALL[:100], 1 << 31: SMALL[100:]}, True),
        (write_aborted, {1: SMALL}, False),
    ],
    ids=["small", "large", "empty", "batch", "aborted"],
)
def test_after_every_step_a_block_is_whole_or_absent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[BlockStore, dict[int, bytes]], None],
    blocks: dict[int, bytes],
    acknowledged: bool,
) -> None:
    store = new_store(tmp_path / "recorded")
    with monkeypatch.context() as patched:
        disk = Disk(tmp_path / "recorded", patched)
        write(store, blocks)
        steps = disk.states
    store.close()
    assert len(steps) >= 3
    number = 0
    for step, states in enumerate(steps, 1):
        for state in states:
            number += 1
            found = reopened(tmp_path, tmp_path / "recorded", state, number, blocks)
            if acknowledged and step == len(steps):
                assert found == blocks, state.what
            if not acknowledged:
                assert found == {}, state.what


def reopened(tmp_path: Path, recorded: Path, state: State, number: int, blocks: dict[int, bytes]) -> dict[int, bytes]:
    """The blocks that a store finds whole on a disk in this state; none has other bytes than it should."""
    root = tmp_path / f"state{number}"
    volume_of(root)
    for path, data in state.files.items():
        target = root / path.relative_to(recorded)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    store = BlockStore(root, 0)
    assert list((root / "tmp").iterdir()) == []
    found: dict[int, bytes] = {}
    for block, data in blocks.items():
        try:
            with store.opened(BlockId(block)) as opened:
                opened.check(0, opened.size)
                found[block] = store.path(BlockId(block)).read_bytes()[: opened.size]
        except (NotFound, BadBlock):
            continue
        assert found[block] == data, state.what
    assert store.usage().blocks == len(found), state.what
    store.close()
    for path in [*root.rglob("*")][::-1]:
        path.rmdir() if path.is_dir() else path.unlink()
    return found


def volume_of(root: Path) -> None:
    Volume.open(root).close()


def new_store(root: Path) -> BlockStore:
    volume_of(root)
    return BlockStore(root, 0)
