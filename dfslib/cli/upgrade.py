"""`dfs upgrade`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from dfslib.cli.command import Command, add_json
from dfslib.cli.quoting import is_printable, quote
from dfslib.cli.session import Session
from dfslib.cli.status import FINALIZE
from dfslib.cli.tables import align
from dfslib.client.results import DatanodeUpgrade, MountUpgrade, UpgradeStatus

_UNKNOWN: Final = "-"
"""In the place of a version that was not told."""
_NOTHING: Final = "nothing is to be finalized"
_TOLD_MAX: Final = 8
"""Who stands in the way, in a refusal of one line."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("status", "finalize"),
        metavar="status|finalize",
        help="show where an upgrade stands, or end it: the level is raised, and there is no way back",
    )
    add_json(parser)
    parser.add_argument("--yes", action="store_true", help="finalize: do not ask")


def _run(args: argparse.Namespace, session: Session) -> None:
    if args.action == "finalize":
        status = _finalize(session, ask=not args.yes, quiet=args.json)
        if status is None:
            return
    else:
        status = session.namenode.upgrade_status()
    if args.json:
        session.json(asdict(status))
        return
    told = lines(status)
    if args.action == "finalize":
        told = [line for line in told if line != _NOTHING]  # said already, in the line before
    for line in told:
        session.line(line)


def _finalize(session: Session, *, ask: bool, quiet: bool) -> UpgradeStatus | None:
    """Where it stands then; None where the user was told that nothing has changed."""
    if ask and not sys.stdin.isatty():
        session.complain("upgrade finalize asks before it begins; where nobody can be asked, give --yes")
        raise SystemExit(2)
    before = session.namenode.upgrade_status()
    if before.level < before.newest_level and not before.possible:
        told = _obstacles(before)
        more = [f"and {len(told) - _TOLD_MAX} more, see dfs upgrade status"] if len(told) > _TOLD_MAX else []
        session.complain(f"the cluster stays at level {before.level}: {'; '.join(told[:_TOLD_MAX] + more)}")
        return None
    if ask and before.possible:
        for line in lines(before):
            session.line(line)
        question = f"Raise the cluster to level {before.newest_level}? There is no way back after that. [y/N] "
        if not session.confirmed(question):
            session.complain(f"the cluster stays at level {before.level}")
            return None
    after = session.namenode.finalize_upgrade()
    if not quiet:
        risen = after.level > before.level
        session.line(f"raised from level {before.level}" if risen else "there is nothing left to finalize")
    return after


def lines(status: UpgradeStatus) -> list[str]:
    """The levels in a line, every datanode and mount in a table, and what is to be done."""
    knows = f"the namenode (DFS {status.version}) knows up to {status.newest_level}"
    head = f"the cluster has level {status.level}, {knows}"
    rows = [["WHO", "VERSION", "FEATURES", "STATE"]]
    for node in status.nodes:
        rows.append([_datanode(node), node.version or _UNKNOWN, _names(node.features), node.state])
    for mount in status.mounts:
        state = "connected" if mount.connected else "away"
        rows.append([_mount(mount), mount.version or _UNKNOWN, _names(mount.features), state])
    return [head, *align(rows, "llll"), *_verdict(status)]


def _verdict(status: UpgradeStatus) -> list[str]:
    if status.level >= status.newest_level:
        return [_NOTHING]
    if status.possible:
        return [f"possible now: {FINALIZE}"]
    return ["not possible yet:", *(f"  {obstacle}" for obstacle in _obstacles(status))]


def _obstacles(status: UpgradeStatus) -> list[str]:
    found = [f"{_datanode(node)} {node.obstacle}" for node in status.nodes if node.obstacle]
    return found + [f"{_mount(mount)} {mount.obstacle}" for mount in status.mounts if mount.obstacle]


def _datanode(node: DatanodeUpgrade) -> str:
    return _shown(f"datanode {node.id[:8]} ({node.url})")


def _mount(mount: MountUpgrade) -> str:
    return _shown(f"mount {mount.name}")


def _shown(text: str) -> str:
    """On one line: peers name themselves."""
    return text if is_printable(text) else quote(text)


def _names(features: Sequence[str]) -> str:
    return ",".join(features) or _UNKNOWN


COMMAND = Command(
    name="upgrade",
    summary="show where an upgrade to this version stands, or finalize it",
    examples="""\
  dfs upgrade status                 who runs which version, and who stands in the way
  dfs upgrade finalize
  dfs upgrade finalize --yes

Until it is finalized, nothing is written that the version before cannot read, and all of it may be started again.
After that there is no way back, and datanodes and mounts of the version before are refused.""",
    configure=_configure,
    run=_run,
)
