"""`dfs cat`."""

from __future__ import annotations

import argparse
import sys

from dfslib.cli.command import Command
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+")


def _run(args: argparse.Namespace, session: Session) -> None:
    for path in args.paths:
        with session.reporting():
            session.namenode.cat(path, sys.stdout.buffer)


COMMAND = Command(
    name="cat",
    summary="write files to standard output, one after the other",
    examples="""\
  dfs cat /notes.txt
  dfs cat /logs/1 /logs/2 | sort""",
    configure=_configure,
    run=_run,
)
