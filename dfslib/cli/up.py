"""`dfs up`: a namenode and datanodes on this machine, in the foreground, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from dfslib.cli.arguments import whole_number
from dfslib.cli.command import Command
from dfslib.cli.processes import Child, labels, server_script
from dfslib.cli.session import Session
from dfslib.client.namenode import HttpNameNode
from dfslib.client.owners import own_user
from dfslib.config import DEFAULT_PORT, parse_replication
from dfslib.errors import DfsError
from dfslib.mount.fuse_mounting import unmount
from dfslib.mount.mounted import is_mounted

_START_S: Final = 60.0
"""A namenode with a large tree opens it in seconds, a datanode lists its blocks; past this something is wrong."""
_STOP_S: Final = 40.0
"""More than the 30 s that DFS_STOP_TIMEOUT gives to requests that run."""
_POLL_S: Final = 0.1
_GIVE_S: Final = 10.0
_OWN: Final = (
    "DFS_NODE_CLASS", "DFS_HOST", "DFS_PORT", "DFS_DB_PATH", "DFS_FS_ROOT", "DFS_NAMENODE_URL",
    "DFS_ADVERTISE_HOST", "DFS_PUBLIC_URL", "DFS_NEW_CLUSTER",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One process: its name, its port and its DFS_* variables."""

    name: str
    port: int
    variables: Mapping[str, str]


def plan(args: argparse.Namespace) -> list[Plan]:
    """The processes that `args` ask for, the namenode first."""
    everywhere = args.host in ("0.0.0.0", "::")
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(args.host, args.host)
    public = args.public_host or (_address_of_this_machine() if everywhere else None)
    namenode = {
        "DFS_NODE_CLASS": "name_node.NameNode",
        "DFS_HOST": args.host,
        "DFS_PORT": str(args.port),
        "DFS_DB_PATH": str(args.data / "namenode"),
    }
    if args.replication is not None:
        namenode["DFS_REPLICATION"] = args.replication
    if not _has_state(args.data):
        namenode["DFS_NEW_CLUSTER"] = "true"  # no datanode can have metadata to be restored: start at once
    plans = [Plan("namenode", args.port, namenode)]
    for number in range(1, args.datanodes + 1):
        port = args.port + number
        datanode = {
            "DFS_NODE_CLASS": "data_node.DataNode",
            "DFS_HOST": args.host,
            "DFS_PORT": str(port),
            "DFS_FS_ROOT": str(args.data / f"data{number}"),
            "DFS_NAMENODE_URL": _url(near, args.port),
            "DFS_ADVERTISE_HOST": near,
        }
        if public:
            datanode["DFS_PUBLIC_URL"] = _url(public, port)
        plans.append(Plan(f"data{number}", port, datanode))
    return plans


class Cluster:
    """The running processes. Everything happens in one thread, which waits for events: signals and deaths."""

    def __init__(self, plans: list[Plan], url: str, mountpoint: Path | None, log: Path) -> None:
        self._mountpoint = mountpoint
        self._log = log
        self._mounted = False
        self._plans = plans
        self._url = url
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._children: list[Child] = []
        self._signals = 0
        self._waits_for = ""
        """What the namenode said the last time that it answered, where it is not open."""
        self.failed = False

    def run(self) -> None:
        """Start, serve, stop. `failed` tells whether a process ended that should not have."""
        with self._signal_handlers():
            try:
                if self._start():
                    self._give_root()
                    self._mount()
                    self._tell()
                    self._serve()
            finally:
                self._unmount()
                self._stop()

    @contextlib.contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        def on_signal(number: int, _frame: FrameType | None) -> None:
            self._signals += 1
            self._events.put(number)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> bool:
        """True when every datanode is alive; False when told to stop before. Ends `failed` otherwise.

        The datanodes start when the namenode answers, otherwise their first words would be warnings; not only when it
        is healthy, since one that has lost its metadata waits for them.
        """
        label = labels([plan.name for plan in self._plans], sys.stderr.isatty())
        inherited = {key: value for key, value in os.environ.items() if key not in _OWN}
        command = [sys.executable, str(server_script())]
        deadline = time.monotonic() + _START_S
        with HttpNameNode(self._url, timeout_s=1.0) as namenode:
            for group, ready in (
                (self._plans[:1], lambda: self._alive(namenode) >= 0),
                (self._plans[1:], lambda: self._alive(namenode) >= len(self._plans) - 1),
            ):
                for item in group:
                    env = {**inherited, **item.variables, "PYTHONUNBUFFERED": "1"}
                    self._children.append(Child(item.name, command, env, label[item.name], self._events))
                if not self._wait_until(ready, deadline):
                    return False
        return True

    def _give_root(self) -> None:
        """An empty tree belongs to who starts it: else only root could write to the mount. By looking, not by
        remembering that it is new: a start that was cut short is made good by the next one."""
        user = own_user()
        if not user.is_given or self._signals:
            return
        try:
            with HttpNameNode(self._url, timeout_s=_GIVE_S) as namenode:
                if namenode.stat("/").uid == 0 and not namenode.ls("/"):
                    namenode.chown("/", user.uid or 0, user.gid or 0)
        except OSError as error:
            sys.stderr.write(f"dfs: the tree's root stays root's: {error}\n")

    def _mount(self) -> None:
        """At the directory asked for; the cluster goes on without, if it cannot be."""
        if self._mountpoint is None or self._signals:
            return
        self._mountpoint.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # no look at what is there: it may be a mount that does not answer
            self._mountpoint.mkdir()
        script = server_script().parent / "dfs.py"
        command = [sys.executable, str(script), "--log", str(self._log), str(self._mountpoint), self._url]
        self._mounted = subprocess.run(command, check=False, start_new_session=True).returncode == 0
        if not self._mounted:
            self._complain(f"{self._mountpoint} is not mounted; the cluster runs without")

    def _unmount(self) -> None:
        """First of all, while there is somebody to take what was written. The user may have taken it off before."""
        if not self._mounted or self._mountpoint is None:
            return
        mountpoint = self._mountpoint.absolute()
        if not is_mounted(mountpoint):
            return
        try:
            unmount(mountpoint)
        except DfsError as error:
            if not is_mounted(mountpoint):  # somebody was faster
                return
            self._complain(f"{error}; it goes when nobody uses it any more")
            with contextlib.suppress(DfsError):
                unmount(mountpoint, lazy=True)

    def _wait_until(self, ready: Callable[[], bool], deadline: float) -> bool:
        while not self._signals:
            dead = next((child for child in self._children if not child.running), None)
            if dead is not None:
                dead.finish()
                self._complain(f"{dead.name} {dead.how_it_ended()}; its last lines above tell why")
                return False
            if ready():
                return True
            if time.monotonic() > deadline:
                why = f": {self._waits_for}" if self._waits_for else ""
                self._complain(f"the cluster is not healthy after {_START_S:.0f} s{why}")
                return False
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=_POLL_S)
        return False

    def _alive(self, namenode: HttpNameNode) -> int:
        """Datanodes that are alive; -1 where the namenode does not answer yet."""
        try:
            status = namenode.status()
        except OSError:
            return -1
        self._waits_for = status.metadata.detail if status.metadata.state != "open" else ""
        return sum(node.state == "alive" for node in status.nodes)

    def _tell(self) -> None:
        curl = f"curl -T FILE {self._url}fs/FILE; curl -L {self._url}fs/FILE"
        shell = f"./dfs.py --url {self._url} put -r FOLDER /"
        script = f'from http_client import HttpNameNode; HttpNameNode("{self._url}").ls("/")'
        mounted = f"mounted: {self._mountpoint}\n" if self._mounted else ""
        sys.stdout.write(f"curl:    {curl}\nshell:   {shell}\nPython:  {script}\n{mounted}")
        sys.stdout.flush()

    def _serve(self) -> None:
        """Until a signal, or until nothing is left to serve."""
        while not self._signals:
            event = self._events.get()
            if isinstance(event, Child):
                left = sum(child.running for child in self._children)
                self._complain(f"{event.name} {event.how_it_ended()}; {left} processes go on")
                if not left:
                    return

    def _stop(self) -> None:
        """Datanodes first, so that they can take their leave from the namenode. A second signal hastens."""
        for group in (self._children[1:], self._children[:1]):
            running = [child for child in group if child.running]
            for child in running:
                child.signal(signal.SIGTERM)
            deadline = time.monotonic() + _STOP_S
            hasten = self._signals + 1
            while any(child.running for child in running):
                if time.monotonic() > deadline or (self._signals >= hasten and self._signals > 1):
                    for child in running:
                        if child.running:
                            self._complain(f"{child.name} does not stop; killing it")
                            child.signal(signal.SIGKILL)
                    break
                with contextlib.suppress(queue.Empty):
                    self._events.get(timeout=_POLL_S)
            for child in running:
                child.finish()
                if child.process.returncode != 0:
                    self._complain(f"{child.name} {child.how_it_ended()}")

    def _complain(self, text: str) -> None:
        self.failed = True
        sys.stderr.write(f"dfs: {text}\n")
        sys.stderr.flush()


def _has_state(data: Path) -> bool:
    """Whether a namenode or a datanode has ever run on this folder."""
    return (data / "namenode").exists() or any(data.glob("data*"))


def _check_ports(host: str, plans: list[Plan]) -> None:
    """Raise OSError naming the first port that is taken, before anything is started."""
    for item in plans:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, item.port, type=socket.SOCK_STREAM)[0]
        except socket.gaierror as error:
            raise OSError(errno.EADDRNOTAVAIL, f"host {host} cannot be found: {error.strerror}") from error
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                probe.listen(1)
            except OSError as error:
                why = "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
                raise OSError(error.errno, f"port {item.port} on {host} (for {item.name}) {why}") from error


def _address_of_this_machine() -> str:
    """The address other machines see, as far as the routing table tells. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address that is nobody's
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _replication(text: str) -> str:
    try:
        parse_replication(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error
    return text


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--datanodes", metavar="N", type=whole_number(1, 1000), default=3, help="how many datanodes (default: 3)"
    )
    parser.add_argument("--data", metavar="DIR", type=Path, default=Path("var"), help="their state (default: ./var)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=whole_number(1, 65535),
        default=DEFAULT_PORT,
        help="the namenode's; the datanodes' follow (default: 8180)",
    )
    parser.add_argument("--replication", metavar="N|all", type=_replication, help="copies of each block (default: all)")
    parser.add_argument("--mount", metavar="DIR", type=Path, help="also mount the tree there")
    parser.add_argument("--public-host", metavar="HOST", help="host by which clients reach the datanodes")


def _run(args: argparse.Namespace, session: Session) -> None:
    if args.port + args.datanodes > 65535:
        session.complain(f"--port {args.port} leaves no ports for {args.datanodes} datanodes")
        raise SystemExit(2)
    plans = plan(args)
    args.data.mkdir(parents=True, exist_ok=True)
    _check_ports(args.host, plans)
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(args.host, args.host)
    cluster = Cluster(plans, _url(near, args.port), args.mount, args.data / "mount.log")
    cluster.run()
    session.failed = session.failed or cluster.failed


COMMAND = Command(
    name="up",
    summary="start a namenode and datanodes on this machine, until Ctrl-C",
    examples="""\
  dfs up                                    three datanodes, state in ./var
  dfs up --mount ./mnt                      the same, and a directory to work in
  dfs up --datanodes 5 --data /srv/dfs --replication 3
  dfs up --host 0.0.0.0 --public-host files.example.org""",
    configure=_configure,
    run=_run,
)
