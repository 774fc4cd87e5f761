"""`dfs drain`."""

from __future__ import annotations

import argparse
import time
from typing import Final

from dfslib.cli.command import Command
from dfslib.cli.session import Session
from dfslib.cli.status import blocks
from dfslib.client.results import ClusterStatus, DatanodeInfo

_ASK_AGAIN_S: Final = 0.5
"""Between two looks at the progress: the namenode plans anew once a second."""
_IDLE_S: Final = 5.0
"""Without any copy waiting or running, after which the user should look at the other datanodes."""
_COUNTING_S: Final = 10.0
"""How long the count of what is to be moved is waited for; a plan for millions of blocks takes seconds."""


def find_node(status: ClusterStatus, wanted: str) -> DatanodeInfo | None:
    """The datanode that `wanted` names as the namenode understands it: by id, its beginning, or URL."""
    found = [
        node for node in status.nodes if node.id.startswith(wanted) or node.url.rstrip("/") == wanted.rstrip("/")
    ]
    return found[0] if len(found) == 1 else None


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE", help="its id, the beginning of it, or its URL, as in dfs status")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--cancel", action="store_true", help="take it back: it keeps its blocks and gets new ones")
    group.add_argument("--wait", action="store_true", help="show the progress until it can be taken away")


def _run(args: argparse.Namespace, session: Session) -> None:
    node = find_node(session.namenode.drain(args.node, cancel=args.cancel), args.node)
    if node is None:  # forgotten by somebody in the same moment
        session.complain(f"{args.node}: no datanode has this id or URL any more")
        return
    if args.cancel:
        session.line(f"{node.id[:8]} ({node.url}): no longer drained")
        return
    counted = _follow(session, node, to_the_end=args.wait)
    if counted is None:
        return
    name = f"{counted.id[:8]} ({counted.url})"
    if counted.to_move == 0:
        session.line(f"{name}: nothing left to move: safe to remove. Stop it, then: dfs forget {counted.id[:8]}")
    else:
        left = "blocks are being counted" if counted.to_move is None else f"{blocks(counted.to_move)} left to move"
        session.line(f"{name}: {left}; to watch: dfs drain --wait {counted.id[:8]}")


def _follow(session: Session, node: DatanodeInfo, *, to_the_end: bool) -> DatanodeInfo | None:
    """The datanode when nothing is left to move, or else when it is known how much is. None where it was told
    that the drain has ended otherwise."""
    progress = _Progress(session)
    counting_until = time.monotonic() + _COUNTING_S
    while node.to_move != 0:
        if not to_the_end and (node.to_move is not None or time.monotonic() > counting_until):
            break
        time.sleep(_ASK_AGAIN_S)
        status = session.namenode.status()
        present = find_node(status, node.id)
        if present is None:
            session.complain(f"{node.id[:8]}: was forgotten meanwhile")
            return None
        if present.state == "alive":
            session.complain(f"{node.id[:8]}: the drain was taken back meanwhile")
            return None
        node = present
        if to_the_end:
            progress.show(node, busy=bool(status.repair.waiting or status.repair.running))
    return node


class _Progress:
    """Lines about a drain: one whenever the count changes, and one where nothing happens."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._shown: int | None = None
        self._idle_since: float | None = None
        self._told = False

    def show(self, node: DatanodeInfo, *, busy: bool) -> None:
        """`busy`: copies are being made or wait to be."""
        now = time.monotonic()
        if node.to_move and node.to_move != self._shown:
            self._shown = node.to_move
            self._session.line(f"{node.id[:8]} ({node.url}): {blocks(node.to_move)} to move")
            self._session.flush()
            self._idle_since = None
        elif busy or node.to_move is None:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif not self._told and now - self._idle_since > _IDLE_S:
            self._told = True
            self._session.write_error("dfs: nothing is being copied: too few other datanodes, or no room on them")


COMMAND = Command(
    name="drain",
    summary="move a datanode's blocks elsewhere, so that it can be taken away",
    examples="""\
  dfs drain 3f2a --wait              shows the progress, ends when it is safe to remove
  dfs drain http://10.0.0.7:8181
  dfs drain 3f2a --cancel

A drained datanode gets no new blocks and still serves its own. It stays drained over restarts.""",
    configure=_configure,
    run=_run,
)
