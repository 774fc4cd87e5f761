"""`dfs put`."""

from __future__ import annotations

import argparse
import os
import sys

from dfslib.cli.arguments import whole_number
from dfslib.cli.command import Command
from dfslib.cli.destinations import local_source_is_directory, places, remote_is_directory
from dfslib.cli.progress_bar import progress_bar
from dfslib.cli.session import Session
from dfslib.client.owners import own_user
from dfslib.client.transfers import JOBS, TransferOptions


def add_transfer_arguments(parser: argparse.ArgumentParser) -> None:
    """What `put` and `get` share."""
    parser.add_argument("-r", "--recursive", action="store_true", help="directories with all that is in them")
    parser.add_argument("-f", "--force", action="store_true", help="also what is equal already (in size and time)")
    parser.add_argument(
        "-j",
        "--jobs",
        metavar="N",
        type=whole_number(1, 256),
        default=JOBS,
        help=f"transfers at once (default: {JOBS})",
    )


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", metavar="SRC", nargs="+", help="local file or directory; - is standard input")
    parser.add_argument("destination", metavar="DST", help="existing directory, or the new name of a single source")
    add_transfer_arguments(parser)
    parser.add_argument(
        "-p", "--preserve", action="store_true", help="modes as they are also without -r, and for root the owners"
    )


def _run(args: argparse.Namespace, session: Session) -> None:
    if args.sources == ["-"]:
        with session.reporting():
            uid, gid = own_user()
            session.namenode.tee(args.destination, sys.stdin.buffer, uid=uid, gid=gid)
        return
    pairs = places(
        args.sources,
        args.destination,
        remote_is_directory(session),
        source_is_directory=local_source_is_directory if args.recursive else None,
    )
    with progress_bar(session, "put") as progress:
        options = TransferOptions(
            recursive=args.recursive,
            skip_equal=not args.force,
            jobs=args.jobs,
            progress=progress,
            on_error=session.report,
            keep_modes=args.recursive or args.preserve,
            keep_owners=args.preserve,
        )
        session.namenode.upload([(source, os.fsencode(place)) for source, place in pairs], options)


COMMAND = Command(
    name="put",
    summary="upload files and directories",
    examples="""\
  dfs put notes.txt /                     to /notes.txt
  dfs put notes.txt /todo.txt             under another name
  dfs put -r src docs /projects           two trees into a directory
  tar c src | dfs put - /src.tar          from a pipe

Times are kept, symbolic links stay links. What is put belongs to who puts it. With -r or -p modes are kept; without,
a file gets its permissions less the umask, as with cp. What is there already with the same size and time is
skipped: an upload that was interrupted goes on where it was.""",
    configure=_configure,
    run=_run,
)
