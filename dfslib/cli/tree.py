"""`dfs tree`."""

from __future__ import annotations

import argparse
from typing import Any

from dfslib.cli.arguments import whole_number
from dfslib.cli.command import Command, add_json
from dfslib.cli.listing import as_json
from dfslib.cli.session import Session
from dfslib.client.entry import Entry


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="*", default=["/"])
    parser.add_argument("-L", dest="depth", metavar="N", type=whole_number(1, 10_000), help="only N levels deep")
    add_json(parser)


class _Tree:
    def __init__(self, session: Session, depth: int | None) -> None:
        self._session = session
        self._depth = depth
        self.directories = 0
        self.files = 0

    def print(self, top: str) -> None:
        self._session.line(self._session.name(top))
        stack = [self._level(top, "")]
        while stack:
            level = stack[-1]
            if not level:
                stack.pop()
                continue
            path, prefix, entry, last = level.pop()
            arrow = f" -> {self._session.name(entry.info.target)}" if entry.is_symlink else ""
            self._session.line(f"{prefix}{'└── ' if last else '├── '}{self._session.name(entry.name)}{arrow}")
            self._count(entry)
            if entry.is_dir and (self._depth is None or len(stack) < self._depth):
                stack.append(self._level(path, prefix + ("    " if last else "│   ")))

    def _level(self, path: str, prefix: str) -> list[tuple[str, str, Entry, bool]]:
        """What is in a directory, the last entry first."""
        entries = self._entries(path)
        found = [(_join(path, entry.name), prefix, entry, entry is entries[-1]) for entry in entries]
        return found[::-1]

    def json(self, top: str) -> dict[str, Any]:
        """A directory as an object whose `entries` are such objects."""
        root: dict[str, Any] = as_json(top, self._session.namenode.stat(top))
        pending = [(top, root, 0)] if root["type"] == "directory" else []
        while pending:
            path, node, depth = pending.pop()
            if self._depth is not None and depth >= self._depth:
                continue
            node["entries"] = []
            for entry in self._entries(path):
                below = as_json(_join(path, entry.name), entry.info, entry.name)
                node["entries"].append(below)
                if entry.is_dir:
                    pending.append((below["path"], below, depth + 1))
        return root

    def _entries(self, path: str) -> list[Entry]:
        with self._session.reporting():
            return self._session.namenode.ls(path)
        return []

    def _count(self, entry: Entry) -> None:
        if entry.is_dir:
            self.directories += 1
        else:
            self.files += 1


def _join(path: str, name: str) -> str:
    return path + name if path.endswith("/") else f"{path}/{name}"


def _run(args: argparse.Namespace, session: Session) -> None:
    tree = _Tree(session, args.depth)
    found = []
    for path in args.paths:
        with session.reporting():
            if args.json:
                found.append(tree.json(path))
            else:
                tree.print(path)
    if args.json:
        session.json(found)
    else:
        session.line(
            f"\n{_plural(tree.directories, 'directory', 'directories')}, {_plural(tree.files, 'file', 'files')}"
        )


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


COMMAND = Command(
    name="tree",
    summary="draw directories and all that is below them",
    examples="""\
  dfs tree /projects
  dfs tree -L 2""",
    configure=_configure,
    run=_run,
)
