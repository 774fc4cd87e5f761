"""`dfs restore`."""

from __future__ import annotations

import argparse
import sys
import time

from dfslib.cli.command import Command
from dfslib.cli.session import Session
from dfslib.cli.status import describe_metadata


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="source", metavar="URL", help="of one datanode; default: who has the latest")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _run(args: argparse.Namespace, session: Session) -> None:
    if not args.yes and not sys.stdin.isatty():
        session.complain("restore asks before it begins; where nobody can be asked, give --yes")
        raise SystemExit(2)
    before = session.namenode.status()
    for line in describe_metadata(before.metadata, time.time()):
        session.line(line)
    session.line(f"cluster {before.cluster_id}: {sum(node.state == 'alive' for node in before.nodes)} datanodes alive")
    session.flush()
    where = args.source or "the datanode that has the latest"
    if not args.yes and not session.confirmed(f"Restore the metadata from {where}? Later changes are lost. [y/N] "):
        session.complain("nothing was restored")
        return
    after = session.namenode.restore(args.source)
    for line in describe_metadata(after.metadata, time.time()):
        session.line(line)
    session.line("Look at the files and at `dfs fsck`; then `dfs release`.")


COMMAND = Command(
    name="restore",
    summary="give an empty namenode the metadata that the datanodes keep",
    examples="""\
  dfs status                         tells whether the namenode waits for this, and what it found
  dfs restore
  dfs restore --from http://10.0.0.7:8181 --yes

Changes after the moment that is shown are lost. Nothing is deleted from the datanodes until dfs release.""",
    configure=_configure,
    run=_run,
)
