"""`dfs df`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from dfslib.cli.command import Command, add_human, add_json
from dfslib.cli.session import Session
from dfslib.cli.sizes import human, kibibytes, percent
from dfslib.cli.tables import align


def _configure(parser: argparse.ArgumentParser) -> None:
    add_human(parser)
    add_json(parser)


def _run(args: argparse.Namespace, session: Session) -> None:
    usage = session.namenode.df()
    if args.json:
        session.json(asdict(usage))
        return
    size = human if args.human else kibibytes
    header = ["Filesystem", "Size" if args.human else "1K-blocks", "Used", "Free", "Available", "Use%"]
    row = [
        session.url,
        size(usage.capacity),
        size(usage.used),
        size(usage.free),
        size(usage.available),
        percent(usage.used, usage.free),
    ]
    header += ["Content", "Files", "Directories"]
    row += [size(usage.bytes), str(usage.files), str(usage.directories)]
    for line in align([header, row], "lrrrrrrrr"):
        session.line(line)


COMMAND = Command(
    name="df",
    summary="show how much room there is",
    examples="""\
  dfs df -h

Size, Used and Free add up the disks of the live datanodes. Available is what new files can take, each with all
of its copies; Content is what all files hold, each counted once.""",
    configure=_configure,
    run=_run,
)
