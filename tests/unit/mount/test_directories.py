"""Open directories: places of names stay what they are, whoever reads."""

from __future__ import annotations

import asyncio

from dfslib.model import Attr, Entry, FileType, InodeId
from dfslib.mount.directories import OpenDirectory

INO = InodeId(1)
OWN = Attr(INO, FileType.DIRECTORY, 0o755)
NAMES = [b"%03d" % number for number in range(200)]


async def fetch(ino: InodeId, after: bytes, limit: int) -> tuple[list[Entry], bool]:
    await asyncio.sleep(0)
    names = [name for name in NAMES if name > after]
    entries = [Entry(name, Attr(InodeId(2 + int(name)), FileType.FILE, 0o644)) for name in names[:limit]]
    return entries, len(names) > limit


def test_two_that_read_the_same_open_directory_each_see_every_name_once() -> None:
    async def listed(directory: OpenDirectory) -> list[bytes]:
        found: list[bytes] = []
        cookie = 0
        while entries := await directory.read(cookie, OWN):
            found += [entry.name for entry in entries]
            assert [entry.cookie for entry in entries] == list(range(cookie + 1, cookie + 1 + len(entries)))
            cookie = entries[-1].cookie
        return found

    async def run() -> None:
        directory = OpenDirectory(INO, fetch, lambda: 0)
        whole = [b".", b"..", *NAMES]
        assert await listed(directory) == whole
        assert await asyncio.gather(*(listed(directory) for _ in range(3))) == [whole] * 3

    asyncio.run(run())
