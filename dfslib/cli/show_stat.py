"""`dfs stat`."""

from __future__ import annotations

import argparse
import time

from dfslib.cli.command import Command, add_json
from dfslib.cli.listing import as_json, group_name, mode_text, user_name
from dfslib.cli.session import Session
from dfslib.client.results import FileInfo


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument("-L", dest="follow", action="store_true", help="what a symbolic link points to")
    add_json(parser)


def _time(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    local = time.localtime(seconds)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}.{fraction:09d} {time.strftime('%z', local)}"


def _lines(session: Session, path: str, info: FileInfo) -> list[str]:
    arrow = f" -> {session.name(info.target)}" if info.is_symlink else ""
    lines = [
        f"  File: {session.name(path)}{arrow}",
        f"  Size: {info.size:<15} Allocated: {info.allocated:<15} {info.type}",
        f" Inode: {info.ino:<15} Links: {info.nlink:<19} Version: {info.version}",
        f"Access: ({info.mode:04o}/{mode_text(info)})  Uid: ({info.uid:5}/{user_name(info.uid):>8})"
        f"   Gid: ({info.gid:5}/{group_name(info.gid):>8})",
        f"Copies: {info.replication:<15}" + (f" ETag: {info.etag}" if info.etag else ""),
    ]
    times = (("Access", info.atime_ns), ("Modify", info.mtime_ns), ("Change", info.ctime_ns))
    return [line.rstrip() for line in lines] + [f"{name}: {_time(value)}" for name, value in times]


def _run(args: argparse.Namespace, session: Session) -> None:
    found = []
    for path in args.paths:
        with session.reporting():
            info = session.namenode.stat(path) if args.follow else session.namenode.lstat(path)
            if args.json:
                found.append(as_json(path, info))
                continue
            for line in _lines(session, path, info):
                session.line(line)
    if args.json:
        session.json(found)


COMMAND = Command(
    name="stat",
    summary="show all attributes of files",
    examples="""\
  dfs stat /notes.txt
  dfs stat --json /notes.txt | jq .[0].etag""",
    configure=_configure,
    run=_run,
)
