"""`dfs mv`."""

from __future__ import annotations

import argparse

from dfslib.cli.command import Command
from dfslib.cli.destinations import places, remote_is_directory, remote_source_is_directory
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", metavar="SRC", nargs="+")
    parser.add_argument("destination", metavar="DST", help="existing directory, or the new name of a single source")
    parser.add_argument("-n", "--no-clobber", action="store_true", help="do not replace what is there")


def _run(args: argparse.Namespace, session: Session) -> None:
    pairs = places(
        args.sources,
        args.destination,
        remote_is_directory(session),
        source_is_directory=remote_source_is_directory(session),
    )
    for source, place in pairs:
        with session.reporting():
            session.namenode.rename(source, place, replace=not args.no_clobber)


COMMAND = Command(
    name="mv",
    summary="move or rename, each atomically",
    examples="""\
  dfs mv /notes.txt /old-notes.txt
  dfs mv /a /b /archive""",
    configure=_configure,
    run=_run,
)
