"""`dfs`: finds the command, runs it, and turns what happens into an exit status.

0: done. 1: an operation failed. 2: bad usage. 130: interrupted. 141: the reader of the output went away.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from dfslib.cli import (
    cat,
    cp,
    df,
    drain,
    du,
    forget,
    fsck,
    get,
    ln,
    ls,
    mkdir,
    mount,
    mount_helper,
    mv,
    namenode,
    put,
    release,
    restore,
    rm,
    show_stat,
    status,
    touch,
    tree,
    umount,
    up,
    upgrade,
    volume_plugin,
)
from dfslib.cli.arguments import seconds
from dfslib.cli.command import Command
from dfslib.cli.session import Session, describe
from dfslib.config import ConfigError, load

COMMANDS: Final[tuple[Command, ...]] = (
    up.COMMAND,
    umount.COMMAND,
    ls.COMMAND,
    put.COMMAND,
    get.COMMAND,
    cat.COMMAND,
    rm.COMMAND,
    mv.COMMAND,
    cp.COMMAND,
    mkdir.COMMAND,
    show_stat.COMMAND,
    df.COMMAND,
    du.COMMAND,
    status.COMMAND,
    fsck.COMMAND,
    touch.COMMAND,
    ln.COMMAND,
    tree.COMMAND,
    drain.COMMAND,
    forget.COMMAND,
    restore.COMMAND,
    namenode.COMMAND,
    release.COMMAND,
    upgrade.COMMAND,
    volume_plugin.COMMAND,
)

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"dfs: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    parser = _Parser(
        prog="dfs",
        description="DFS, a distributed file system. Paths of DFS are absolute: the leading slash may be left out.",
        epilog="dfs MOUNT HOST [PORT] mounts the tree (dfs MOUNT HOST --help); dfs COMMAND --help shows the arguments "
        "and examples of one command.",
    )
    _add_common(parser, None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_Parser)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog="examples:\n" + command.examples.rstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        sub.add_argument("--help", action="help", help="show this text")
        _add_common(sub, argparse.SUPPRESS)
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return parser


def _add_common(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument("--url", default=default, help="the namenode (default: DFS_URL, or http://localhost:8180/)")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=default or 30.0,
        help="how long to go on trying where the cluster does not answer (default: 30)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and give the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    names = {command.name for command in COMMANDS}
    if arguments[:1] == [mount_helper.OPTION]:
        return mount_helper.run(arguments[1:])
    if arguments and _is_mount(arguments, names):
        return mount.run(arguments)
    parser = build_parser()
    try:
        args = parser.parse_args(arguments)
        if args.command is None:
            parser.error("which command?")
        url = load({"DFS_URL": args.url} if args.url is not None else os.environ, "DFS_URL")["DFS_URL"]
    except SystemExit as end:
        return int(end.code or 0)
    except ConfigError as error:
        _say(f"dfs: {error}" if args.url is None else f"dfs: --url {args.url!r} is no URL such as http://host:8180/")
        return 2
    return _run(args, Session(url, args.timeout))


def _run(args: argparse.Namespace, session: Session) -> int:
    try:
        args.run(args, session)
        sys.stdout.flush()
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # what is still buffered has no reader; without this the interpreter complains about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        session.complain(describe(error))
    return 1 if session.failed else 0


def _is_mount(arguments: Sequence[str], commands: set[str]) -> bool:
    """Whether this is `MOUNT HOST [PORT]`, and no command that is misspelt."""
    if arguments[0].startswith("-"):
        return arguments[0] in mount.OPTIONS
    return arguments[0] not in commands and len(arguments) > 1


def _say(text: str) -> None:
    print(text.encode("utf-8", "replace").decode(), file=sys.stderr)  # noqa: T201
