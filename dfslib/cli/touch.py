"""`dfs touch`."""

from __future__ import annotations

import argparse

from dfslib.cli.command import Command
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+")


def _run(args: argparse.Namespace, session: Session) -> None:
    for path in args.paths:
        with session.reporting():
            session.namenode.touch(path)


COMMAND = Command(
    name="touch",
    summary="make empty files, or set the times of those that are there to now",
    examples="""\
  dfs touch /done""",
    configure=_configure,
    run=_run,
)
