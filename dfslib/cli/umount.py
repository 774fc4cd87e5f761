"""`dfs umount MOUNT`: take a mount off."""

from __future__ import annotations

import argparse
from pathlib import Path

from dfslib.cli.command import Command
from dfslib.cli.session import Session
from dfslib.errors import DfsError
from dfslib.mount.fuse_mounting import unmount
from dfslib.mount.mounted import is_mounted


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoints", metavar="MOUNT", nargs="+", type=Path)
    parser.add_argument("-l", "--lazy", action="store_true", help="although programs use it: it goes when they end")


def _run(args: argparse.Namespace, session: Session) -> None:
    for mountpoint in args.mountpoints:
        try:
            if not is_mounted(mountpoint.absolute()):
                session.complain(f"{mountpoint}: not a mount of DFS")
                continue
            unmount(mountpoint.absolute(), lazy=args.lazy)
        except DfsError as error:
            session.complain(str(error))


COMMAND = Command(
    name="umount",
    summary="take a mount off; what was closed is on the datanodes",
    examples="""\
  dfs umount ./mnt
  dfs umount --lazy /mnt/dfs""",
    configure=_configure,
    run=_run,
)
