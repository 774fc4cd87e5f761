"""`dfs du`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field

from dfslib.cli.command import Command, add_human, add_json
from dfslib.cli.session import Session
from dfslib.cli.sizes import human, kibibytes
from dfslib.client.results import FileInfo


@dataclass
class _Directory:
    path: str
    size: int = 0
    todo: list[str] = field(default_factory=list)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="*", default=["/"])
    parser.add_argument("-s", "--summarize", action="store_true", help="one total for each path")
    parser.add_argument("-b", "--bytes", action="store_true", help="in bytes")
    add_human(parser)
    add_json(parser)


class _Counter:
    """Content once: a file of several names is counted at the first."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: set[int] = set()

    def totals(self, path: str) -> Iterator[tuple[str, int]]:
        """(path, bytes) of every directory below `path`, and last of itself, as du orders them."""
        info = self._session.namenode.lstat(path)
        if not info.is_dir:
            yield path, self._count(info)
            return
        stack = [self._open(path)]
        while stack:
            top = stack[-1]
            if top.todo:
                stack.append(self._open(top.todo.pop()))
                continue
            stack.pop()
            if stack:
                stack[-1].size += top.size
            yield top.path, top.size

    def _open(self, path: str) -> _Directory:
        directory = _Directory(path)
        with self._session.reporting():
            for entry in self._session.namenode.ls(path):
                if entry.is_dir:
                    directory.todo.append(f"{path.rstrip('/')}/{entry.name}")
                else:
                    directory.size += self._count(entry.info)
        directory.todo.reverse()
        return directory

    def _count(self, info: FileInfo) -> int:
        if info.nlink > 1:
            if info.ino in self._seen:
                return 0
            self._seen.add(info.ino)
        return info.allocated


def _run(args: argparse.Namespace, session: Session) -> None:
    size = str if args.bytes else human if args.human else kibibytes
    counter = _Counter(session)
    found = []
    for path in args.paths:
        with session.reporting():
            for below, total in counter.totals(path):
                if args.summarize and below != path:
                    continue
                if args.json:
                    found.append({"path": below, "bytes": total})
                else:
                    session.line(f"{size(total)}\t{session.name(below)}")
    if args.json:
        session.json(found)


COMMAND = Command(
    name="du",
    summary="show how much directories hold",
    examples="""\
  dfs du -sh /projects
  dfs du -b /""",
    configure=_configure,
    run=_run,
)
