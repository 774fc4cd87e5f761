"""`dfs.py MOUNT HOST [PORT]`: the tree as a local directory. In the background it returns when the mount answers."""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from dfslib.cli.arguments import whole_number
from dfslib.client.namenode import HttpNameNode
from dfslib.config import DEFAULT_PORT
from dfslib.errors import DfsError
from dfslib.mount.mount_options import KERNEL_OPTIONS, is_ignored
from dfslib.mount.running import MountSettings, run_mount
from dfslib.runtime.logs import configure_logging

OPTIONS: Final = ("-f", "--foreground", "-o", "--mkfs", "--yes", "--log", "--binding")
"""By which a command line that begins with an option is known for a mount's."""
_OWN_OPTIONS: Final = frozenset({"allow_other", "uid", "gid", "cache", "timeout"})
_SYSLOG: Final = Path("/dev/log")
_MIB: Final = 1 << 20
_CACHE_MAX_MIB: Final = 1 << 20
_ID_MAX: Final = (1 << 32) - 2
_DONE: Final = b"mounted\n"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"dfs: {message} (see dfs.py MOUNT HOST --help)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dfs",
        usage="dfs.py [-f] [-o OPTION,...] [--mkfs [--yes]] [--log FILE] [--binding linux|fusepy] MOUNT HOST [PORT]",
        description="Mount the tree at the directory MOUNT. HOST is the namenode's name, address or URL.",
        epilog="""examples:
  dfs.py /mnt/dfs 192.168.0.200
  dfs.py -o ro,cache=1024 ./mnt localhost 8180
  dfs.py umount ./mnt""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mountpoint", metavar="MOUNT", type=Path)
    parser.add_argument("host", metavar="HOST")
    parser.add_argument("port", metavar="PORT", nargs="?", type=whole_number(1, 65535), default=DEFAULT_PORT)
    parser.add_argument("-f", "--foreground", action="store_true", help="stay, and log to standard error")
    parser.add_argument(
        "-o",
        dest="options",
        metavar="OPTION,...",
        action="append",
        default=[],
        help="ro: nothing can be written; noexec, noatime, sync and what else mount(8) has for every file system; "
        "allow_other: for all users (the default for root); uid=N, gid=N: to whom files are shown to belong; "
        "cache=MiB: memory (default: 256); timeout=SECONDS: how long a program waits for a cluster that is away "
        "(default: 30)",
    )
    parser.add_argument("--mkfs", action="store_true", help="first remove everything in the tree; asks before")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--log", metavar="FILE", type=Path, help="log there (default: syslog, if there is one)")
    parser.add_argument("--source", default="", help=argparse.SUPPRESS)
    parser.add_argument("--subdir", default="/", help=argparse.SUPPRESS)
    parser.add_argument("--binding", choices=("linux", "fusepy"), default="", help=argparse.SUPPRESS)
    return parser


def run(arguments: Sequence[str]) -> int:
    """The exit status: 0 mounted, 1 it cannot be, 2 bad usage."""
    parser = build_parser()
    try:
        args = parser.parse_args(arguments)
        settings = parse_settings(args)
    except SystemExit as end:
        return int(end.code or 0)
    except ValueError as error:
        _say(f"dfs: {error}")
        return 2
    if args.mkfs and not _make_empty(settings.url, yes=args.yes):
        return 1
    return _in_foreground(settings, args.log) if args.foreground else _in_background(settings, args.log)


def parse_settings(args: argparse.Namespace) -> MountSettings:
    """Raises ValueError for an option that makes no sense."""
    settings = MountSettings(
        _url(args.host, args.port),
        args.mountpoint.absolute(),
        args.binding,
        allow_other=os.geteuid() == 0,
        source=args.source,
        subdir=args.subdir,
    )
    kernel_options: list[str] = []
    for option in ",".join(args.options).split(","):
        name, _, value = option.partition("=")
        if option in KERNEL_OPTIONS:
            kernel_options.append(option)
        elif option == "allow_other":
            settings = settings._replace(allow_other=True)
        elif name == "uid":
            settings = settings._replace(uid=_number(option, value, 0, _ID_MAX))
        elif name == "gid":
            settings = settings._replace(gid=_number(option, value, 0, _ID_MAX))
        elif name == "cache":
            settings = settings._replace(cache_bytes=_number(option, value, 16, _CACHE_MAX_MIB) * _MIB)
        elif name == "timeout":
            settings = settings._replace(timeout_s=float(_number(option, value, 1, 3600)))
        elif option and not is_ignored(option):
            raise ValueError(f"-o {option}: there is no such option")
    return settings._replace(kernel_options=tuple(kernel_options))


def is_option(option: str) -> bool:
    """Whether there is one of this name, whatever its value is."""
    return (
        option in KERNEL_OPTIONS
        or is_ignored(option)
        or option == "remount"
        or option.partition("=")[0] in _OWN_OPTIONS
    )


def _number(option: str, value: str, least: int, most: int) -> int:
    try:
        return whole_number(least, most)(value)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"-o {option}: {error}") from None


def _url(host: str, port: int) -> str:
    """Raises ValueError."""
    if "://" in host:
        if urlsplit(host).scheme not in ("http", "https") or not urlsplit(host).hostname:
            raise ValueError(f"{host!r} is no URL such as http://host:8180/")
        return host.rstrip("/") + "/"
    if not host or any(character in host for character in "/ @?#"):
        raise ValueError(f"{host!r} is no host")
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _make_empty(url: str, *, yes: bool) -> bool:
    """Remove everything in the tree."""
    if not yes:
        sys.stderr.write(f"dfs: --mkfs removes every file of {url}. Type yes to go on: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip() != "yes":
            _say("dfs: nothing was removed, nothing is mounted")
            return False
    try:
        with HttpNameNode(url) as namenode:
            for entry in namenode.ls("/"):
                namenode.rm(f"/{entry.name}", recursive=True)
    except OSError as error:
        _say(f"dfs: {error}")
        return False
    return True


def _in_foreground(settings: MountSettings, log_file: Path | None) -> int:
    _log_to(log_file)
    return _mount(settings, lambda: None, _say)


def _in_background(settings: MountSettings, log_file: Path | None) -> int:
    """A child serves; this process goes when the child says that the mount answers, or why it cannot."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        if said == _DONE:
            return 0
        os.waitpid(child, 0)
        _say(said.decode("utf-8", "replace").strip() or "dfs: the mount ended without a word")
        return 1
    os.close(reading)
    os.setsid()

    def tell(text: bytes) -> None:
        nonlocal writing
        if writing >= 0:
            os.write(writing, text)
            os.close(writing)
            writing = -1

    def ready() -> None:
        _leave_terminal()
        tell(_DONE)

    _log_to(log_file if log_file is not None else _SYSLOG)
    os._exit(_mount(settings, ready, lambda text: tell(text.encode())))


def _leave_terminal() -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def _mount(settings: MountSettings, ready: Callable[[], None], complain: Callable[[str], None]) -> int:
    try:
        if run_mount(settings, ready):
            return 0
        complain("dfs: not all that was written has reached the datanodes")
    except DfsError as error:
        complain(f"dfs: {error}")
    except OSError as error:
        complain(f"dfs: {settings.mountpoint}: {error.strerror or error}")
    return 1


def _log_to(place: Path | None) -> None:
    if place is None:
        configure_logging("INFO")
        return
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    if place != _SYSLOG:
        handler: logging.Handler = logging.FileHandler(place)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    elif place.exists():
        handler = logging.handlers.SysLogHandler(str(place))
        handler.setFormatter(logging.Formatter("dfs[%(process)d]: %(name)s %(message)s"))
    else:
        handler = logging.NullHandler()
    root.addHandler(handler)


def _say(text: str) -> None:
    print(text.encode("utf-8", "replace").decode(), file=sys.stderr)  # noqa: T201
