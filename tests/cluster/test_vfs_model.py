"""The VFS of two mounts, without a kernel, against a local directory: random calls, the same answers, the same tree."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dfslib.errors import DfsError
from dfslib.mount.clock import Clock
from dfslib.mount.filesystem import AttrUpdate, Buffer
from dfslib.mount.vfs import VFS, Options
from tests.cluster.real_cluster import Cluster
from tests.cluster.vfs_and_directory import CALLER, Both, Silent, Slot, fallocate, local, remote

PUNCH, ZERO, KEEP = 0x02, 0x10, 0x01
SPACE = 300_000
"""Bytes of a file: more than what goes with a commit, so that writes take both ways."""

path = st.sampled_from(["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "e", "e/a"])
slot = st.integers(0, 2)
at = st.one_of(st.integers(0, 60), st.sampled_from([4095, 4096, 70_000, 140_000]), st.integers(0, SPACE))
length = st.one_of(st.integers(1, 60), st.sampled_from([4096, 70_000, 140_000]), st.integers(1, SPACE // 2))
flags = st.sampled_from([
    os.O_RDWR | os.O_CREAT,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT | os.O_APPEND,
    os.O_RDWR,
    os.O_RDWR | os.O_TRUNC,
    os.O_RDWR | os.O_APPEND,
])  # fmt: skip


def call(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


STEP = st.one_of(
    call("switch", st.integers(0, 1)),
    call("mkdir", path), call("mkfifo", path), call("symlink", path, st.sampled_from(["a", "d", "nowhere"])),
    call("unlink", path), call("rmdir", path), call("link", path, path),
    call("rename", path, path, st.integers(0, 2)), call("rename", path, path, st.just(0)),
    call("listing", path), call("look", path), call("chmod", path, st.integers(0, 0o777)),
    call("utime", path, st.tuples(st.integers(0, 2**61), st.integers(0, 2**61))),
    call("truncate", path, at),
    call("setxattr", path, st.binary(max_size=20), st.integers(0, 2)), call("xattrs", path),
    call("open", slot, path, flags), call("open", slot, path, flags), call("open", slot, path, flags),
    call("write", slot, at, length, st.integers(1, 255)), call("write", slot, at, length, st.integers(1, 255)),
    call("write", slot, at, length, st.integers(1, 255)), call("write", slot, at, length, st.integers(1, 255)),
    call("write", slot, at, length, st.integers(1, 255)), call("write", slot, at, length, st.integers(1, 255)),
    call("read", slot, at, length), call("read", slot, at, length), call("read", slot, st.just(0), st.just(SPACE)),
    call("read", slot, st.just(0), st.just(SPACE)), call("truncate", path, at), call("ftruncate", slot, at),
    call("ftruncate", slot, at), call("fallocate", slot, at, length, st.sampled_from([0, PUNCH | KEEP, ZERO, KEEP])),
    call("copy", slot, at, slot, at, length), call("setfl", slot, st.booleans()), call("fsync", slot),
    call("close", slot),
)  # fmt: skip


_BEGINNING = [
    ("mkdir", "d"),
    ("open", 0, "a", os.O_RDWR | os.O_CREAT),
    ("open", 1, "d/a", os.O_RDWR | os.O_CREAT | os.O_APPEND),
    ("write", 0, 0, 1000, 7),
    ("switch", 1),
    ("open", 2, "b", os.O_RDWR | os.O_CREAT),
]


_APPEND_TO_WHAT_THE_OTHER_CUT = [
    ("truncate", "d/a", 1),
    ("switch", 0),
    ("close", 0),
    ("write", 0, 0, 1, 1),
    ("read", 0, 0, SPACE),
]


class Mounts(NamedTuple):
    runner: asyncio.Runner
    all: list[VFS]


@pytest.fixture(scope="module")
def mounts(cluster: Cluster) -> Iterator[Mounts]:
    if os.geteuid() != 0:
        pytest.skip("the reference is a directory as root sees it")
    with asyncio.Runner() as runner:
        clock = Clock(time.time_ns, time.monotonic)
        made = [VFS(cluster.url, f"test{number}", Options(8 << 20, 20.0), clock) for number in range(2)]
        for vfs in made:
            vfs.attach(Silent())
            runner.run(vfs.start())
        yield Mounts(runner, made)
        for vfs in made:
            assert runner.run(vfs.close()) == 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return (tmp_path_factory.mktemp(f"local{number}") for number in itertools.count())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(steps=st.lists(STEP, min_size=25, max_size=80))
@example(steps=_APPEND_TO_WHAT_THE_OTHER_CUT)
def test_two_mounts_are_one_local_directory(mounts: Mounts, folders: Iterator[Path], steps: list[Any]) -> None:
    folder = next(folders)
    umask = os.umask(0)
    try:
        mounts.runner.run(_run(Both(mounts.all, os.fsencode(folder.name), folder), steps))
    finally:
        os.umask(umask)
        shutil.rmtree(folder)


async def _run(both: Both, steps: list[Any]) -> None:
    await both.begin()
    try:
        for step in [*_BEGINNING, *steps]:
            outcome = await _do(both, *step)
            if outcome is not None:
                assert outcome[1] == outcome[0], step
        for mount in (0, 1):
            await both.switch(mount)
            await _compare(both, "")
    finally:
        await both.end()
    for mount in (0, 1):
        await both.switch(mount)
        await _compare(both, "")


async def _do(both: Both, name: str, *arguments: Any) -> tuple[object, object] | None:
    """None where the step makes no sense as things are."""
    if name == "switch":
        await both.switch(*arguments)
        return None
    if name in _ON_SLOTS:
        return await _on_slot(both, name, *arguments)
    paths = [argument for argument in arguments if isinstance(argument, str)]
    if name == "symlink":
        paths = paths[:1]
    if not all(both.is_walkable(one) for one in paths):
        return None
    full = Path(both.path(paths[0]))
    if name in ("chmod", "utime", "xattrs", "listing") and full.is_symlink():
        return None  # the local call would follow it
    if name in ("open", "truncate", "setxattr") and os.path.lexists(full) and not _is_file(full):
        return None  # the kernel opens FIFOs itself, and refuses directories and what links lead to
    if name == "rename" and _kernel_refuses(both, *arguments):
        return None
    result: tuple[object, object] = await getattr(both, name)(*arguments)
    return result


def _kernel_refuses(both: Both, path: str, to: str, flags: int) -> bool:
    """What rename(2) answers itself: a directory into itself, over what contains it, or a file over a directory."""
    if f"{path}/".startswith(f"{to}/") or f"{to}/".startswith(f"{path}/"):
        return True
    old, new = Path(both.path(path)), Path(both.path(to))
    return flags == 0 and os.path.lexists(old) and os.path.lexists(new) and _is_dir(old) != _is_dir(new)


def _is_dir(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


Here = Callable[[int], object]
"""A call on the local file that is open as a descriptor."""
There = Callable[[VFS, Slot], Awaitable[object]]
"""The same call on a mount's file."""

_ON_SLOTS = ("write", "read", "ftruncate", "fallocate", "copy", "setfl", "fsync", "close")


async def _on_slot(both: Both, name: str, number: int, *arguments: Any) -> tuple[object, object] | None:
    if name == "close":
        await both.close(number)
        return None
    if (slot := both.pick(number)) is None:
        return None
    if name == "setfl":
        both.set_append(slot, *arguments)
        return None
    if name == "copy":
        start, other, to, count = arguments
        target = both.pick(other)
        if target is None or target.ino == slot.ino or target.appends:
            return None  # the kernel refuses these itself, or may
        return await both.copy(slot, start, target, to, count)
    here, there = _CALLS[name](*arguments)
    return local(here, slot.descriptor), await remote(lambda: there(both.vfs, slot))


def _write(offset: int, count: int, byte: int) -> tuple[Here, There]:
    data = bytes([byte]) * count

    async def there(vfs: VFS, slot: Slot) -> int:
        return await vfs.write(CALLER, slot.handle, offset, data, append=slot.appends) if data else 0

    return lambda descriptor: os.pwrite(descriptor, data, offset), there


def _read(offset: int, count: int) -> tuple[Here, There]:
    async def there(vfs: VFS, slot: Slot) -> bytes:
        found: asyncio.Future[Buffer | DfsError | None] = asyncio.get_running_loop().create_future()
        if vfs.begin_read(slot.handle, offset, count, found.set_result) and (data := await found) is not None:
            assert not isinstance(data, DfsError)
            return bytes(data)
        return b"".join(await vfs.read(slot.handle, offset, count))

    return lambda descriptor: os.pread(descriptor, count, offset), there


def _ftruncate(size: int) -> tuple[Here, There]:
    async def there(vfs: VFS, slot: Slot) -> None:
        await vfs.setattr(CALLER, slot.ino, AttrUpdate(size=size), slot.handle)

    return lambda descriptor: os.ftruncate(descriptor, size), there


def _fallocate(offset: int, count: int, mode: int) -> tuple[Here, There]:
    return (
        lambda descriptor: fallocate(descriptor, mode, offset, count),
        lambda vfs, slot: vfs.fallocate(CALLER, slot.handle, mode, offset, count),
    )


def _fsync() -> tuple[Here, There]:
    return os.fsync, lambda vfs, slot: vfs.fsync(slot.handle, data_only=False)


_CALLS: dict[str, Callable[..., tuple[Here, There]]] = {
    "write": _write,
    "read": _read,
    "ftruncate": _ftruncate,
    "fallocate": _fallocate,
    "fsync": _fsync,
}


async def _compare(both: Both, path: str) -> None:
    """The whole tree, with all bytes."""
    here, there = await both.listing(path)
    assert there == here, path
    assert isinstance(here, list)
    for name, _ in here:
        below = f"{path}/{os.fsdecode(name)}".lstrip("/")
        here_look, there_look = await both.look(below)
        assert there_look == here_look, below
        full = Path(both.path(below))
        if _is_dir(full):
            await _compare(both, below)
        elif _is_file(full):
            assert (await both.content(below)) == full.read_bytes(), below
