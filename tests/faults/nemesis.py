"""Breaks a running cluster in random ways, and mends it again. Bounded, seeded, and told on standard output."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import requests

from tests.cluster.real_cluster import Cluster, Server, wait_until
from tests.deadline import DEADLINE_S
from tests.faults.small_disk import SmallDisk

HEAL_S = 2 * DEADLINE_S


class Means(NamedTuple):
    """What only root can do. `cut` takes a server off the network and returns what brings it back; `disk` is one
    datanode's that can be filled."""

    cut: Callable[[Server], Callable[[], None]] | None = None
    disk: SmallDisk | None = None


class Nemesis:
    """Harms at most one datanode at a time, and what a datanode stores only while all others have everything."""

    def __init__(self, cluster: Cluster, seed: int, means: Means) -> None:
        self.cluster = cluster
        self.done: list[str] = []
        self._random = random.Random(f"nemesis-{seed}")
        self._means = means
        self._begun = time.monotonic()
        self._actions: list[Callable[[Server], None]] = [
            self._kill,
            self._kill,
            self._terminate,
            self._pause,
            self._kill_namenode,
            self._kill_namenode,
            self._terminate_namenode,
            self._pause_namenode,
            self._wipe,
            self._corrupt,
            self._corrupt,
            self._damage_store,
        ]
        if means.cut is not None:
            self._actions += [self._cut_off, self._cut_off_namenode]
        if means.disk is not None:
            self._actions.append(self._fill)

    def run(self, seconds: float, enough: Callable[[], bool], stop: threading.Event) -> None:
        """One action after the other until the time is over and `enough` was done meanwhile, or `stop` is set; the
        cluster is left whole."""
        end, last = (time.monotonic() + limit_s for limit_s in (seconds, seconds + DEADLINE_S))
        while (time.monotonic() < end or not enough()) and not stop.is_set():
            assert time.monotonic() < last, "the clients do hardly anything"
            victim = self._random.choice(self.cluster.datanodes)
            self._random.choice(self._actions)(victim)
            self._wait_alive()
            stop.wait(self._random.uniform(0, 1))
        self.wait_healthy()

    def wait_healthy(self) -> None:
        """All datanodes alive, every block with all its copies."""
        self._wait_alive()
        wait_until(lambda: self._healthy(), "every block has its copies again", HEAL_S)

    def _say(self, what: str) -> None:
        line = f"{time.monotonic() - self._begun:6.1f} s  {what}"
        self.done.append(line)
        print(line, flush=True)

    def _wait_alive(self) -> None:
        count = len(self.cluster.datanodes)
        wait_until(lambda: self.cluster.alive() == count, f"{count} datanodes are alive again", HEAL_S)

    def _healthy(self) -> bool:
        try:
            return bool(requests.get(f"{self.cluster.url}cluster/fsck", timeout=30).json()["healthy"])
        except requests.RequestException:
            return False

    def _wait(self, longest_s: float) -> None:
        threading.Event().wait(self._random.uniform(0, longest_s))

    def _kill(self, server: Server) -> None:
        self._say(f"kill {server.name}")
        server.kill()
        self._wait(3)
        server.start()

    def _terminate(self, server: Server) -> None:
        self._say(f"terminate {server.name}")
        assert server.stop() == 0
        self._wait(2)
        server.start()

    def _pause(self, server: Server) -> None:
        self._say(f"pause {server.name}")
        server.pause()
        try:
            self._wait(8)
        finally:
            server.resume()

    def _kill_namenode(self, _: Server) -> None:
        self._kill(self.cluster.namenode)

    def _terminate_namenode(self, _: Server) -> None:
        self._terminate(self.cluster.namenode)

    def _pause_namenode(self, _: Server) -> None:
        self._say("pause namenode")
        self.cluster.namenode.pause()
        try:
            self._wait(4)
        finally:
            self.cluster.namenode.resume()

    def _wipe(self, server: Server) -> None:
        self.wait_healthy()
        self._say(f"wipe {server.name}")
        server.kill()
        shutil.rmtree(server.env["DFS_FS_ROOT"])
        self._wait(2)
        server.start()

    def _corrupt(self, server: Server) -> None:
        """Some block files of one datanode, while all others have theirs."""
        self.wait_healthy()
        files = sorted((Path(server.env["DFS_FS_ROOT"]) / "blocks").glob("*/*"))
        chosen = self._random.sample(files, min(len(files), 5))
        self._say(f"corrupt {len(chosen)} blocks of {server.name}")
        for path in chosen:
            try:
                self._damage(path)
            except FileNotFoundError:
                continue  # deleted meanwhile
        self._wait(1)
        self._find_damage(server)

    def _damage(self, path: Path) -> None:
        how = self._random.choice(["flip", "truncate", "delete"])
        if how == "delete":
            path.unlink()
            return
        data = bytearray(path.read_bytes())
        at = self._random.randrange(len(data))
        if how == "flip":
            data[at] ^= 1 << self._random.randrange(8)
            with path.open("r+b") as file:
                file.seek(at)
                file.write(data[at : at + 1])
        else:
            with path.open("r+b") as file:
                file.truncate(at)

    def _damage_store(self, _: Server) -> None:
        """The namenode's, while it is down. It is restored, and nothing that was acknowledged is missing."""
        namenode = self.cluster.namenode
        how = self._random.choice(["kill", "terminate"])
        path = Path(namenode.env["DFS_DB_PATH"]) / "data.mdb"
        if how == "kill":
            namenode.kill()
        else:
            assert namenode.stop() == 0
        data = bytearray(path.read_bytes())
        harm = self._random.choice(["flips", "zeros", "cut off", "emptied"])
        if harm == "flips":
            for _bit in range(len(data) // 1000):
                data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        elif harm == "zeros":
            at = self._random.randrange(len(data))
            data[at : at + 200_000] = bytes(len(data[at : at + 200_000]))
        else:
            del data[self._random.randrange(len(data)) if harm == "cut off" else 0 :]
        self._say(f"{how} namenode and damage its store: {harm}")
        path.write_bytes(data)
        self._wait(1)
        namenode.start()
        self._wait_alive()
        requests.post(f"{self.cluster.url}cluster/release", timeout=DEADLINE_S).raise_for_status()

    def _find_damage(self, server: Server) -> None:
        """Its restart makes it look at what it has; the scrubber and readers find the rest."""
        for path in sorted((Path(server.env["DFS_FS_ROOT"]) / "blocks").glob("*/*")):
            try:
                requests.get(f"{server.url}/blocks/{path.name}", timeout=30)
            except requests.RequestException:
                return

    def _cut_off(self, server: Server) -> None:
        assert self._means.cut is not None
        self._say(f"cut {server.name} off")
        heal = self._means.cut(server)
        try:
            self._wait(8)
        finally:
            heal()

    def _fill(self, _: Server) -> None:
        disk = self._means.disk
        assert disk is not None
        self._say(f"fill the disk of {disk.server.name}")
        disk.fill()
        try:
            self._wait(6)
        finally:
            disk.free()

    def _cut_off_namenode(self, _: Server) -> None:
        self._cut_off(self.cluster.namenode)
