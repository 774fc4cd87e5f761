"""`dfs status`."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from dfslib.cli.command import Command, add_json
from dfslib.cli.session import Session
from dfslib.cli.sizes import human, percent
from dfslib.cli.tables import align
from dfslib.client.results import ClusterStatus


def duration(seconds: float) -> str:
    """`3 s`, `5 min`, `7 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def lines(status: ClusterStatus, now_s: float) -> list[str]:
    """The cluster in one line, its datanodes in a table."""
    rows = [["DATANODE", "STATE", "URL", "SIZE", "USED", "FREE", "USE%", "BLOCKS", "LAST SEEN"]]
    for node in sorted(status.nodes, key=lambda node: (node.url, node.id)):
        state = node.state if node.writable or node.state != "alive" else "alive, full"
        rows.append(
            [
                node.id[:8],
                state,
                node.url,
                human(node.capacity),
                human(node.used),
                human(node.free),
                percent(node.used, node.free),
                str(node.blocks),
                f"{duration(now_s - node.last_seen)} ago",
            ]
        )
    alive = sum(node.state == "alive" for node in status.nodes)
    head = (
        f"cluster {status.cluster_id}, up {duration(status.uptime_s)}, DFS {status.version}: "
        f"{alive} of {len(status.nodes)} datanodes alive, replication {status.replication} "
        f"(at least {status.min_replicas}), {status.garbage_blocks} blocks to be deleted"
    )
    return [head, *align(rows, "lllrrrrrl")]


def _run(args: argparse.Namespace, session: Session) -> None:
    status = session.namenode.status()
    if args.json:
        session.json(asdict(status))
        return
    for line in lines(status, time.time()):
        session.line(line)


COMMAND = Command(
    name="status",
    summary="show the datanodes and how they are",
    examples="""\
  dfs status
  dfs status --json | jq '.nodes[] | select(.state != "alive")'""",
    configure=_configure,
    run=_run,
)
