"""`dfs ls`."""

from __future__ import annotations

import argparse
import shutil
import time
from typing import Any

from dfslib.cli.command import Command, add_human, add_json
from dfslib.cli.listing import as_json, long_lines
from dfslib.cli.session import Session
from dfslib.cli.sizes import human
from dfslib.cli.tables import in_columns
from dfslib.client.entry import Entry
from dfslib.client.results import FileInfo


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="*", default=["/"], help="directory or file (default: /)")
    parser.add_argument("-l", dest="long", action="store_true", help="mode, links, owner, size and time too")
    parser.add_argument("-n", dest="numeric", action="store_true", help="as -l, with owners as numbers")
    parser.add_argument("-1", dest="single", action="store_true", help="one name a line")
    parser.add_argument("-R", dest="recursive", action="store_true", help="directories below too")
    parser.add_argument("-d", dest="itself", action="store_true", help="a directory itself, not what is in it")
    add_human(parser)
    add_json(parser)


class _Lister:
    def __init__(self, args: argparse.Namespace, session: Session) -> None:
        self._args = args
        self._session = session
        self._blocks: list[str] = []
        self._found: list[dict[str, Any]] = []

    def run(self) -> None:
        files: list[tuple[str, FileInfo]] = []
        directories: list[str] = []
        for path in self._args.paths:
            with self._session.reporting():
                info = self._session.namenode.lstat(path)
                if info.is_symlink and not (self._args.long or self._args.numeric or self._args.itself):
                    info = self._session.namenode.stat(path)
                if info.is_dir and not self._args.itself:
                    directories.append(path)
                else:
                    files.append((path, info))
        if self._args.json:
            self._found += [as_json(path, info) for path, info in files]
        elif files:
            self._print(files)
        headed = self._args.recursive or len(self._args.paths) > 1
        first = not files
        for path in directories:
            first = self._directory(path, headed, first)
        if self._args.json:
            self._session.json(self._found)

    def _directory(self, top: str, headed: bool, first: bool) -> bool:
        pending = [top]
        while pending:
            path = pending.pop()
            with self._session.reporting():
                entries = self._session.namenode.ls(path)
                if self._args.json:
                    self._found += [as_json(_join(path, entry.name), entry.info, entry.name) for entry in entries]
                else:
                    if headed:
                        self._session.line(("" if first else "\n") + f"{self._session.name(path)}:")
                    self._total(entries)
                    self._print([(entry.name, entry.info) for entry in entries])
                first = False
                if self._args.recursive:
                    pending += [_join(path, entry.name) for entry in reversed(entries) if entry.is_dir]
        return first

    def _total(self, entries: list[Entry]) -> None:
        if self._args.long or self._args.numeric:
            total = sum(entry.info.allocated for entry in entries)
            self._session.line(f"total {human(total) if self._args.human else -(-total // 1024)}")

    def _print(self, files: list[tuple[str, FileInfo]]) -> None:
        session = self._session
        if self._args.long or self._args.numeric:
            named = [(session.name(name) + _arrow(session, info), info) for name, info in files]
            lines = long_lines(named, time.time(), human_sizes=self._args.human, numeric=self._args.numeric)
        else:
            lines = [session.name(name) for name, _ in files]
            if session.on_terminal and not self._args.single:
                lines = in_columns(lines, shutil.get_terminal_size().columns)
        for line in lines:
            session.line(line)


def _arrow(session: Session, info: FileInfo) -> str:
    return f" -> {session.name(info.target)}" if info.is_symlink else ""


def _join(path: str, name: str) -> str:
    return path + name if path.endswith("/") else f"{path}/{name}"


def _run(args: argparse.Namespace, session: Session) -> None:
    _Lister(args, session).run()


COMMAND = Command(
    name="ls",
    summary="list directories",
    examples="""\
  dfs ls
  dfs ls -lh /projects
  dfs ls -R --json / | jq -r '.[].path'""",
    configure=_configure,
    run=_run,
)
