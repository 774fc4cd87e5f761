"""`dfs rm`."""

from __future__ import annotations

import argparse

from dfslib.cli.command import Command
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument("-r", "-R", "--recursive", action="store_true", help="directories with all that is in them")
    parser.add_argument("-f", "--force", action="store_true", help="no error for what is not there")


def _run(args: argparse.Namespace, session: Session) -> None:
    for path in args.paths:
        with session.reporting():
            try:
                session.namenode.rm(path, recursive=args.recursive)
            except FileNotFoundError:
                if not args.force:
                    raise


COMMAND = Command(
    name="rm",
    summary="remove files, and directories with -r",
    examples="""\
  dfs rm /notes.txt /todo.txt
  dfs rm -r /projects/old""",
    configure=_configure,
    run=_run,
)
