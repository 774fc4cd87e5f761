"""`dfs get`."""

from __future__ import annotations

import argparse
import os

from dfslib.cli.command import Command
from dfslib.cli.destinations import local_is_directory, places, remote_source_is_directory
from dfslib.cli.progress_bar import progress_bar
from dfslib.cli.put import add_transfer_arguments
from dfslib.cli.session import Session
from dfslib.client.transfers import TransferOptions


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", metavar="SRC", nargs="+", help="file or directory of DFS")
    parser.add_argument(
        "destination", metavar="DST", help="existing local directory, or the new name of a single source"
    )
    add_transfer_arguments(parser)


def _run(args: argparse.Namespace, session: Session) -> None:
    pairs = places(
        args.sources,
        args.destination,
        local_is_directory,
        source_is_directory=remote_source_is_directory(session) if args.recursive else None,
    )
    with progress_bar(session, "get") as progress:
        options = TransferOptions(
            recursive=args.recursive,
            skip_equal=not args.force,
            jobs=args.jobs,
            progress=progress,
            on_error=session.report,
        )
        session.namenode.download([(os.fsencode(source), place) for source, place in pairs], options)


COMMAND = Command(
    name="get",
    summary="download files and directories",
    examples="""\
  dfs get /notes.txt .
  dfs get /notes.txt copy.txt
  dfs get -r /projects/src /projects/docs backup/

Modes and times are kept. What is there already with the same size and time is skipped, and a large file that
broke off (.NAME.dfs-part) is taken up where it was. Ctrl-C leaves no parts behind.""",
    configure=_configure,
    run=_run,
)
