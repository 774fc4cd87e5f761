"""`mount.dfs SOURCE DIR [-sfnv] [-o OPTION,...]`: what mount(8), fstab and systemd call for the types dfs and fuse.dfs.

It is `dfs.py MOUNT HOST [PORT]` in the form and with the exit statuses that mount(8) has: 0 mounted, 1 bad usage, 32 it
cannot be mounted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from dfslib.cli import mount
from dfslib.config import DEFAULT_PORT
from dfslib.errors import DfsError
from dfslib.mount.fuse_mounting import remount
from dfslib.mount.mount_options import KERNEL_OPTIONS, flags_of

OPTION: Final = "--mount-helper"
"""By which `dfs.py` is told to be one: no name of a directory."""
_USAGE: Final = 1
_FAILED: Final = 32
_OF_THE_TABLE: Final = frozenset({"fd", "rootmode", "user_id", "group_id", "max_read", "blksize"})
"""What the kernel shows of every FUSE mount."""
_STATUS: Final = {0: 0, 1: _FAILED, 2: _USAGE}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"mount.dfs: {message}\n")


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mount.dfs", usage="mount.dfs HOST[:PORT][/DIRECTORY] DIR [-sfnv] [-o OPTION,...]")
    parser.add_argument("source", metavar="HOST[:PORT][/DIRECTORY]")
    parser.add_argument("target", metavar="DIR", type=Path)
    parser.add_argument("-o", dest="options", metavar="OPTION,...", action="append", default=[])
    parser.add_argument("-s", dest="sloppy", action="store_true", help="leave out options that are not known")
    parser.add_argument("-f", dest="fake", action="store_true", help="only look whether it could be asked for")
    parser.add_argument("-n", action="store_true", help="no /etc/mtab: there is none")
    parser.add_argument("-v", dest="verbose", action="store_true", help="say what is mounted")
    parser.add_argument("-t", dest="kind", metavar="TYPE", help=argparse.SUPPRESS)
    parser.add_argument("-r", dest="read_only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-w", dest="read_write", action="store_true", help=argparse.SUPPRESS)
    return parser


def run(arguments: Sequence[str]) -> int:
    """The exit status."""
    try:
        args = _build_parser().parse_args(arguments)
        host, port, subdir = parse_source(args.source)
        options = [option for text in args.options for option in text.split(",") if option]
        options += ["ro"] * args.read_only + ["rw"] * args.read_write
        if args.sloppy:
            options = [option for option in options if mount.is_option(option)]
        if "remount" in options:
            return _remount(args.target, options, fake=args.fake)
        words = ["-o", ",".join(options), "--source", args.source, "--subdir", subdir]
        words += ["--", str(args.target), host, str(port)]
        settings = mount.parse_settings(mount.build_parser().parse_args(words))
    except SystemExit as end:
        return _USAGE if end.code else 0
    except ValueError as error:
        return _say(error, _USAGE)
    if args.fake:
        return 0
    status = _STATUS[mount.run(words)]
    if args.verbose and status == 0:
        _say(f"{settings.url} is mounted at {args.target}", 0)
    return status


def parse_source(source: str) -> tuple[str, int, str]:
    """Host (or URL), port and directory of HOST, HOST:PORT, [IPV6]:PORT, IPV6, each with or without a /DIRECTORY behind
    it, or of a URL. Raises ValueError."""
    if "://" in source:
        return source, DEFAULT_PORT, "/"
    place, _, subdir = source.partition("/")
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{source!r} is no source such as [::1]:8180")
        port = rest[1:]
    elif place.count(":") > 1:
        host, rest, port = place, "", ""
    else:
        host, rest, port = place.partition(":")
    if rest and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{source!r} has no port from 1 to 65535 behind the colon")
    if not host:
        raise ValueError(f"{source!r} has no host")
    parts = [part for part in subdir.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"{source!r}: a directory of the tree, without '..'")
    return host, int(port) if port else DEFAULT_PORT, "/" + "/".join(parts)


def _remount(target: Path, options: list[str], *, fake: bool) -> int:
    """Only what the kernel keeps is changed. The rest stays as it was mounted: mount(8) repeats what fstab and the
    kernel's table say of a mount, so that it cannot be told from what was asked for. Raises ValueError."""
    for option in options:
        if not mount.is_option(option) and option.partition("=")[0] not in _OF_THE_TABLE:
            raise ValueError(f"-o {option}: there is no such option")
    wanted = [option for option in options if option in KERNEL_OPTIONS]
    if os.geteuid() != 0:
        raise ValueError("only root changes a mount that is there")
    if fake:
        return 0
    try:
        remount(target.absolute(), flags_of(wanted))
    except DfsError as error:
        return _say(error, _FAILED)
    return 0


def _say(what: object, status: int) -> int:
    print(f"mount.dfs: {what}".encode("utf-8", "replace").decode(), file=sys.stderr)  # noqa: T201
    return status
