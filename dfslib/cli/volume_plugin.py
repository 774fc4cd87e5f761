"""`dfs volume-plugin`: Docker volumes on this host that are directories of the tree."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dfslib.cli.command import Command
from dfslib.cli.processes import server_script
from dfslib.cli.session import Session
from dfslib.errors import DfsError
from dfslib.mount.volumes.serving import PluginSettings, run_plugin
from dfslib.runtime.logs import configure_logging


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        type=Path,
        default=Path("/run/docker/plugins/dfs.sock"),
        help="where Docker finds it; its name is the driver's (default: /run/docker/plugins/dfs.sock)",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/lib/dfs-volumes"), help="its state (default: /var/lib/dfs-volumes)"
    )
    parser.add_argument("-o", dest="options", metavar="OPTION,...", action="append", default=[], help="of the mount")


def _run(args: argparse.Namespace, session: Session) -> None:
    if os.geteuid() != 0:
        session.complain("a volume plugin mounts for containers: it needs root")
        return
    configure_logging("INFO")
    script = server_script().parent / "dfs.py"
    try:
        run_plugin(PluginSettings(session.url, args.socket, args.folder.absolute(), args.options, script))
    except DfsError as error:
        session.complain(str(error))


COMMAND = Command(
    name="volume-plugin",
    summary="serve Docker volumes that are directories of the tree, until Ctrl-C",
    examples="""\
  dfs --url http://10.0.0.1:8180/ volume-plugin
  docker volume create -d dfs -o subdir=/projects web
  docker run -v web:/data alpine ls /data""",
    configure=_configure,
    run=_run,
)
