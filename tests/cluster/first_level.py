"""A cluster's folders as the build before wrote them, that build, and what is to be found whoever has the folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, Self

from dfslib.client.namenode import HttpNameNode
from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import ROOT, Cluster, wait_until
from tests.deadline import DEADLINE_S

FIXTURE: Final = ROOT / "tests" / "fixtures" / "stage_one"
MOUNT: Final = """
import asyncio, sys
from dfslib.errors import DfsError
from dfslib.model import ROOT, FileType
from dfslib.mount.session import Session
from dfslib.wire import session as wire

class Listener:
    def invalidated(self, push): pass
    def nodes_changed(self, nodes): pass
    def disconnected(self): pass
    async def recover(self, call, *, lost): pass

async def main(url, name):
    session = Session(url, name, Listener(), 60.0)
    await session.start()
    print("mounted", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, data = (text.encode() for text in line.split())
        made = await session.call(wire.Create(ROOT, name, FileType.FILE, 0o644, 0, 0, open=True))
        await session.call(wire.Write(made.attr.ino, [wire.Piece(0, data)]))
        await session.call(wire.Close(made.attr.ino))
        print("written", flush=True)
    await session.close()

try:
    asyncio.run(main(*sys.argv[1:]))
except DfsError as error:
    print("refused:", error, flush=True)
"""
"""A mount without its FUSE: the session of whichever build it is run with. Each line of its input is a file's name and
content."""


def unpack(archive: str, folder: Path) -> None:
    with tarfile.open(FIXTURE / archive) as packed:
        packed.extractall(folder, filter="data")


@cache
def manifest() -> Mapping[str, Mapping[str, Any]]:
    """What each path has, by percent-encoded path."""
    found: dict[str, dict[str, Any]] = json.loads((FIXTURE / "manifest.json").read_text())
    return found


def cluster_of_folders(folder: Path, **settings: str) -> Cluster:
    """Not started. All that is said by the manifest is in it."""
    folder.mkdir()
    unpack("folders.tar.xz", folder)
    cluster = Cluster(folder, 3, **settings)
    del cluster.namenode.env["DFS_NEW_CLUSTER"]
    return cluster


def differences(url: str, *, without: str = "\0") -> list[str]:
    """In what the cluster's tree is not as the manifest says; nothing else is looked at. `without`: the beginning of
    paths that are left out."""
    return [
        f"{path}: {found} instead of {wanted}"
        for path, facts in manifest().items()
        if not path.startswith(without)
        for found, wanted in [(_facts(url, path, facts), dict(facts))]
        if found != wanted
    ]


def _facts(url: str, path: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    headers = call(url, "HEAD", f"/fs{path}?follow=false").headers
    found: dict[str, Any] = {
        name: headers.get("x-dfs-inode" if name == "ino" else f"x-dfs-{name.replace('_', '-')}")
        for name in wanted
        if name not in ("sha256", "xattrs")
    }
    if "xattrs" in wanted:
        found["xattrs"] = call(url, "GET", f"/fs{path}?op=xattrs").json()["xattrs"]
    if "sha256" in wanted:
        found["sha256"] = hashlib.sha256(read_file(url, f"/fs{path}").body).hexdigest()
    return found


class Written:
    """What a test writes besides, and that it stays; one that is removed is None."""

    def __init__(self, url: str) -> None:
        self.dfs = HttpNameNode(url, timeout_s=DEADLINE_S)
        self.files: dict[str, bytes | None] = {}

    def put(self, path: str, data: bytes) -> None:
        self.dfs.tee(path, data)
        self.files[path] = data

    def some(self, folder: str) -> None:
        """A bit of everything, in a new folder and on what the cluster had before."""
        self.dfs.mkdir(folder)
        self.put(f"{folder}/put", folder.encode() * 1000)
        self.put(f"{folder}/large", Random(folder).randbytes(300_000))
        self.put(f"{folder}/old-name", b"renamed")
        self.dfs.rename(f"{folder}/old-name", f"{folder}/new-name")
        self.files[f"{folder}/new-name"], self.files[f"{folder}/old-name"] = b"renamed", None
        self.dfs.copy("/docs/medium", f"{folder}/copy")
        self.dfs.append(f"{folder}/copy", b"and more")
        self.files[f"{folder}/copy"] = self.dfs.cat("/docs/medium") + b"and more"
        self.put(f"{folder}/removed", b"x" * 5000)
        self.dfs.rm(f"{folder}/removed")
        self.files[f"{folder}/removed"] = None
        self.dfs.symlink("put", f"{folder}/link")

    def differences(self) -> list[str]:
        return [path for path, data in self.files.items() if self._found(path) != data]

    def _found(self, path: str) -> bytes | None:
        return self.dfs.cat(path) if self.dfs.exists(path) else None


@contextlib.contextmanager
def load(url: str) -> Iterator[Written]:
    """Writes, reads, renames and removes until it ends; fails if a single request has failed."""
    stop = threading.Event()
    failures: list[str] = []
    written = Written(url)

    def work() -> None:
        try:
            number = 0
            written.dfs.mkdir("/load")
            while not stop.is_set():
                path = f"/load/{number % 20}"
                data = b"%d " % number * (1 + number * 37 % 5000)
                written.put(path, data[: len(data) // 2])
                written.dfs.append(path, data[len(data) // 2 :])
                written.files[path] = data
                assert written.dfs.cat(path) == data
                if number % 3 == 0:
                    written.dfs.rename(path, f"{path}-renamed")
                    written.files[f"{path}-renamed"], written.files[path] = data, None
                elif number % 7 == 0:
                    written.dfs.rm(path)
                    written.files[path] = None
                number += 1
        except (OSError, AssertionError) as error:
            failures.append(repr(error))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(lambda: len(written.files) > 5 or failures, "the load runs")
        yield written
    finally:
        stop.set()
        thread.join()
    assert failures == []


class Mount:
    """A mount of some build, as a process of its own."""

    def __init__(self, sources: Path, url: str, name: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(sources)}
        command = [sys.executable, "-c", MOUNT, url, name]
        self._process = subprocess.Popen(
            command, env=environment, cwd=sources, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self._line()
        """`mounted`, or why not."""

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def write(self, name: str, data: str) -> None:
        """A file in the root; there when this returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {data}\n")
        self._process.stdin.flush()
        assert self._line() == "written"

    def close(self) -> None:
        """The session ends."""
        self._process.communicate(timeout=DEADLINE_S)
        assert self._process.returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
