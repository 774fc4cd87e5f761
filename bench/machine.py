"""What this machine can do without DFS: plain files, LMDB, and a bare aiohttp server of files."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb

_SERVER = """
import sys
from aiohttp import web
async def get(request):
    return web.FileResponse(sys.argv[2] + request.path)
app = web.Application()
app.add_routes([web.get("/{name:.*}", get)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""


def write_files(folder: Path, names: list[str], block: bytes, count: int) -> None:
    """Plain files of `count` times `block`, written and fsynced one after the other, and their folder."""
    for name in names:
        with (folder / name).open("wb", buffering=0) as file:
            for _ in range(count):
                file.write(block)
            os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def lmdb_commits(folder: Path, commits: int, group: int) -> None:
    """Durable commits of `group` puts of 8 records each, as a change of the namespace has."""
    with lmdb.open(str(folder), map_size=1 << 30) as env:
        for number in range(commits):
            with env.begin(write=True) as txn:
                for record in range(group * 8):
                    txn.put(b"%08d-%d" % (number, record), b"x" * 60)


def lmdb_gets(folder: Path, count: int) -> None:
    """Lookups of 3 records each in a transaction of their own, as a stat has."""
    with lmdb.open(str(folder), map_size=1 << 30) as env:
        for number in range(count):
            with env.begin() as txn:
                for record in range(3):
                    txn.get(b"%08d-%d" % (number % 100, record))


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """A bare aiohttp FileResponse over a folder, in a process of its own; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", _SERVER, str(port), str(folder)]) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError("the bare server does not answer")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
