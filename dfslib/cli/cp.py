"""`dfs cp`."""

from __future__ import annotations

import argparse

from dfslib.cli.command import Command
from dfslib.cli.destinations import places, remote_is_directory, remote_source_is_directory
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", metavar="SRC", nargs="+")
    parser.add_argument("destination", metavar="DST", help="existing directory, or the new name of a single source")
    parser.add_argument("-r", "-R", "--recursive", action="store_true", help="directories with all that is in them")


def _run(args: argparse.Namespace, session: Session) -> None:
    pairs = places(
        args.sources,
        args.destination,
        remote_is_directory(session),
        source_is_directory=remote_source_is_directory(session) if args.recursive else None,
    )
    for source, place in pairs:
        with session.reporting():
            if args.recursive:
                session.namenode.copy_tree(source, place, session.report)
            else:
                session.namenode.copy(source, place)


COMMAND = Command(
    name="cp",
    summary="copy within DFS; no data moves",
    examples="""\
  dfs cp /notes.txt /notes.bak
  dfs cp -r /projects/site /archive""",
    configure=_configure,
    run=_run,
)
