"""`dfs mkdir`."""

from __future__ import annotations

import argparse

from dfslib.cli.arguments import octal_mode
from dfslib.cli.command import Command
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument("-p", "--parents", action="store_true", help="missing ones above too; no error if it is there")
    parser.add_argument("-m", "--mode", metavar="MODE", type=octal_mode, help="permission bits in octal (default: 755)")


def _run(args: argparse.Namespace, session: Session) -> None:
    for path in args.paths:
        with session.reporting():
            session.namenode.mkdir(path, parents=args.parents, mode=args.mode)


COMMAND = Command(
    name="mkdir",
    summary="make directories",
    examples="""\
  dfs mkdir /projects
  dfs mkdir -p /projects/site/img""",
    configure=_configure,
    run=_run,
)
