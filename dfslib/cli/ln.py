"""`dfs ln`."""

from __future__ import annotations

import argparse

from dfslib.cli.command import Command
from dfslib.cli.destinations import places, remote_is_directory
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", nargs="+", help="what the link leads to")
    parser.add_argument("link", metavar="LINK", help="the new name, or a directory for it")
    parser.add_argument("-s", "--symbolic", action="store_true", help="a symbolic link instead of a second name")


def _run(args: argparse.Namespace, session: Session) -> None:
    for target, place in places(args.targets, args.link, remote_is_directory(session)):
        with session.reporting():
            if args.symbolic:
                session.namenode.symlink(target, place)
            else:
                session.namenode.ln(target, place)


COMMAND = Command(
    name="ln",
    summary="make links",
    examples="""\
  dfs ln /notes.txt /also-notes.txt
  dfs ln -s releases/2 /current""",
    configure=_configure,
    run=_run,
)
