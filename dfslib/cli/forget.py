"""`dfs forget`."""

from __future__ import annotations

import argparse

from dfslib.cli.command import Command
from dfslib.cli.drain import find_node
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE", help="its id, the beginning of it, or its URL, as in dfs status")


def _run(args: argparse.Namespace, session: Session) -> None:
    node = find_node(session.namenode.status(), args.node)
    session.namenode.forget(node.id if node else args.node)
    session.line(f"{node.id[:8]} ({node.url}): forgotten" if node else f"{args.node}: forgotten")


COMMAND = Command(
    name="forget",
    summary="strike a datanode that is gone for good",
    examples="""\
  dfs drain 3f2a --wait && ssh node7 systemctl stop dfs-datanode && dfs forget 3f2a

One that is still there is refused. The copies that it had no longer count; if it was not drained, blocks may be
short of copies or lost: dfs fsck tells. A datanode that comes back after all joins again.""",
    configure=_configure,
    run=_run,
)
