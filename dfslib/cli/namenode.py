"""`dfs namenode`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from dfslib.cli.command import Command
from dfslib.cli.session import Session
from dfslib.cli.status import describe_metadata
from dfslib.client.results import MetadataState

_SERVED: Final = "the metadata is served already: there is nothing to open"


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("open",), metavar="open", help="serve the metadata that the namenode has in its folder"
    )
    parser.add_argument(
        "--force", action="store_true", help="also where datanodes have not shown that it is the newest, or have other"
    )
    parser.add_argument("--yes", action="store_true", help="with --force: do not ask")


def _run(args: argparse.Namespace, session: Session) -> None:
    before = session.namenode.status().metadata
    if not args.force:
        if before.state == "open":
            session.line(f"the metadata is served already: {before.detail}" if before.detail else _SERVED)
        else:
            session.complain(f"the metadata is not served: {before.detail}")
        return
    if not args.yes and not _agreed(session, before):
        return
    after = session.namenode.open_metadata(force=True).metadata
    same = (after.restored_until, after.detail) == (before.restored_until, before.detail)
    if before.state == "open" and same:  # what is opened by force is a restore to the last change
        session.line(_SERVED)
        return
    for line in describe_metadata(after, time.time()):
        session.line(line)
    if after.held:
        session.line("Look at the files, at /lost+found and at `dfs fsck`; then `dfs release`.")


def _agreed(session: Session, before: MetadataState) -> bool:
    if not sys.stdin.isatty():
        session.complain("namenode open --force asks before it begins; where nobody can be asked, give --yes")
        raise SystemExit(2)
    for line in describe_metadata(before, time.time()):
        session.line(line)
    if session.confirmed("Serve the metadata of this namenode? What only others have been told of is given up. [y/N] "):
        return True
    session.complain("nothing was opened")
    return False


COMMAND = Command(
    name="namenode",
    summary="have a namenode serve the metadata that it has",
    examples="""\
  dfs status                         tells whom the namenode waits for, and why
  dfs namenode open --force
  dfs namenode open --force --yes

A namenode that was started serves nothing before half of its datanodes have shown that it has not an old copy of its
metadata. With --force it takes what it has for the newest: use it where those that are away will not come back. What
others were told of since becomes files in /lost+found, and nothing is deleted from the datanodes until dfs release.""",
    configure=_configure,
    run=_run,
)
