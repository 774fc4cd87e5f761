"""`dfs status`."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Final

from dfslib.cli.command import Command, add_json
from dfslib.cli.session import Session
from dfslib.cli.sizes import human, percent
from dfslib.cli.tables import align
from dfslib.client.results import ClusterStatus, DatanodeInfo, MetadataState, RepairProgress

FINALIZE: Final = "dfs upgrade finalize"


def duration(seconds: float) -> str:
    """`3 s`, `5 min`, `7 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def moment(seconds: float) -> str:
    """A time since the epoch as local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def blocks(count: int) -> str:
    """`1 block`, `120 blocks`."""
    return f"{count} block" + ("" if count == 1 else "s")


def describe_node(node: DatanodeInfo) -> str:
    """A datanode's state and what is worth knowing beside it: `draining, 120 blocks to move`."""
    words = [node.state]
    if node.to_move is not None:
        words.append(f"{blocks(node.to_move)} to move" if node.to_move else "safe to remove")
    elif node.state == "alive" and not node.writable and not node.slow:
        words.append("full")
    if node.slow:
        words.append("slow")
    return ", ".join(words)


def describe_repair(repair: RepairProgress) -> str:
    """Blocks that want repair, and the copies that are made."""
    return (
        f"repair: {blocks(repair.short)} short of copies, {repair.lost} lost; "
        f"copies: {repair.waiting} waiting, {repair.running} running, {repair.done} done"
    )


def describe_metadata(metadata: MetadataState, now_s: float) -> list[str]:
    """The copies of the metadata, and what a restore has left to be known."""
    found = []
    is_open = metadata.state == "open"
    if metadata.detail or not is_open:
        found.append(f"metadata: {metadata.state}" + (f": {metadata.detail}" if metadata.detail else ""))
    if is_open and metadata.copied_until is not None:
        copied = f"{moment(metadata.copied_until)} ({duration(now_s - metadata.copied_until)} ago)"
        found.append(f"metadata: copied to the datanodes until {copied}")
    elif is_open:
        found.append("metadata: no copy on the datanodes yet")
    if metadata.checked is not None:
        checked = f"{moment(metadata.checked)} ({duration(now_s - metadata.checked)} ago)"
        found.append(f"metadata: checked {checked}" + (", and is checked again now" if metadata.checking else ""))
    elif metadata.checking:
        found.append("metadata: not checked yet; a check runs")
    if metadata.damage:
        found.append(f"metadata: was damaged before: {metadata.damage}")
    if metadata.restored_until is not None:
        found.append(f"metadata: restored to {moment(metadata.restored_until)}; later changes are missing")
    if metadata.held:
        found.append("metadata: nothing is deleted from the datanodes until `dfs release`")
    return found


def describe_level(status: ClusterStatus) -> list[str]:
    """That an upgrade is to be finalized, where it is. Before it is open, a namenode does not know the level."""
    if status.metadata.state != "open" or status.level >= status.newest_level:
        return []
    return [f"upgrade: to be finalized: level {status.level} of {status.newest_level}; when all is well: {FINALIZE}"]


def lines(status: ClusterStatus, now_s: float) -> list[str]:
    """The cluster, its repair and its metadata in a line each, its datanodes in a table."""
    rows = [["DATANODE", "STATE", "URL", "SIZE", "USED", "FREE", "USE%", "BLOCKS", "LAST SEEN"]]
    for node in sorted(status.nodes, key=lambda node: (node.url, node.id)):
        rows.append(
            [
                node.id[:8],
                describe_node(node),
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
    who = f"cluster {status.cluster_id}" if status.cluster_id else "no cluster yet"
    head = (
        f"{who}, up {duration(status.uptime_s)}, DFS {status.version}: "
        f"{alive} of {len(status.nodes)} datanodes alive, replication {status.replication} "
        f"(at least {status.min_replicas}), {status.garbage_blocks} blocks to be deleted"
    )
    about = [describe_repair(status.repair), *describe_metadata(status.metadata, now_s), *describe_level(status)]
    return [head, *about, *align(rows, "lllrrrrrl")]


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
  watch dfs status
  dfs status --json | jq '.nodes[] | select(.state != "alive")'""",
    configure=_configure,
    run=_run,
)
