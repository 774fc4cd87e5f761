"""A stack of ours on a swarm of one host: deployed, watched, used from within, removed with or without its volumes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from docker.models.containers import Container

from tests.cluster.real_cluster import ROOT, alive_datanodes, wait_until
from tests.deadline import DEADLINE_S
from tests.swarm import engine
from tests.swarm.compose import files, settings

INSIDE = ROOT / "tests" / "swarm" / "inside.yml"
Filters = dict[str, str | list[str] | bool]
"""As the `docker` package takes them."""
_DEADLINE_S = 2 * DEADLINE_S
"""Swarm takes its time: containers have half a minute to stop, and health checks seconds to succeed."""


class Stack:
    """`url` is the namenode's for this machine; within the stack it is http://name:8180/."""

    def __init__(self, name: str, image: str, overlays: Sequence[str | Path], **env: str) -> None:
        self.name = name
        self.overlays = overlays
        self.env = settings(image, **env)
        self.url = f"http://localhost:{self.env['NAME_PORT']}/"

    def deploy(self, datanodes: int, **env: str) -> None:
        """`docker stack deploy`, as docs/swarm.md has it; returns when so many datanodes are alive."""
        self.env |= env
        config = engine.run(["docker-compose", *files(self.overlays), "config"], env=self.env)
        command = ["docker", "stack", "deploy", "--resolve-image", "never", "-c", "-", self.name]
        subprocess.run(command, input=config, text=True, check=True, capture_output=True, timeout=_DEADLINE_S)
        self.wait_alive(datanodes)

    def wait_alive(self, count: int) -> None:
        wait_until(lambda: alive_datanodes(self.url) == count, f"{count} datanodes alive", _DEADLINE_S, 0.3)

    def wait_settled(self) -> None:
        """Every service has the tasks that it is to have, all of them healthy."""
        wait_until(self._is_settled, f"all tasks of {self.name} run", _DEADLINE_S, 0.3)

    def _is_settled(self) -> bool:
        lines = engine.command("stack", "services", self.name, "--format", "{{.Replicas}}").splitlines()
        return all(len(set(line.split()[0].split("/"))) == 1 for line in lines)

    def kill(self, service: str) -> None:
        """One container of a service; returns when swarm has put another one in its place, which is healthy."""
        before = self.containers(service)
        before[0].kill()

        def is_replaced() -> bool:
            now = self.containers(service)
            return before[0] not in now and len(now) == len(before)

        wait_until(is_replaced, f"another one runs as {service}", _DEADLINE_S, 0.2)
        self.wait_settled()

    def remove(self, volumes: bool = False) -> None:
        """Return when no container of it is left, so that it can be deployed anew."""
        wait_until(self._is_given_up, f"the stack {self.name} is given up", _DEADLINE_S, 1)
        wait_until(lambda: not self._all_containers(), f"no container of {self.name} is left", _DEADLINE_S, 0.3)
        networks = engine.client().networks
        wait_until(
            lambda: not networks.list(filters=self._mine), f"no network of {self.name} is left", _DEADLINE_S, 0.3
        )
        if volumes:
            for volume in engine.client().volumes.list(filters={"name": f"{self.name}_"}):
                volume.remove()

    def _is_given_up(self) -> bool:
        """Once it is said to be: `docker stack rm` fails while a container that ends still uses a network."""
        done = subprocess.run(["docker", "stack", "rm", self.name], capture_output=True, text=True, timeout=_DEADLINE_S)
        if done.returncode != 0:
            print(f"docker stack rm {self.name}: {done.stderr.strip()}")
        return done.returncode == 0

    @property
    def _mine(self) -> Filters:
        return {"label": f"com.docker.stack.namespace={self.name}"}

    def _all_containers(self) -> list[Container]:
        return engine.client().containers.list(all=True, filters=self._mine, ignore_removed=True)

    def containers(self, service: str, **more: str) -> list[Container]:
        """Those of a service that run; `health="healthy"`: and whose health checks succeed."""
        filters: Filters = {"label": f"com.docker.swarm.service.name={self.name}_{service}", **more}
        return engine.client().containers.list(filters=filters, ignore_removed=True)

    def datanode_ports(self, **filters: str) -> list[int]:
        """The ports of this machine at which the datanodes answer."""
        bindings = [container.ports.get("8181/tcp") for container in self.containers("data", **filters)]
        return [int(binding[0]["HostPort"]) for binding in bindings if binding]

    def scale(self, service: str, count: int) -> None:
        engine.client().services.get(f"{self.name}_{service}").scale(count)

    def remove_volume(self, volume: str) -> None:
        """Of a service that is scaled to none; with the containers of earlier tasks, which swarm keeps."""
        name = f"{self.name}_{volume}"
        for container in engine.client().containers.list(all=True, filters={"volume": name}, ignore_removed=True):
            container.remove(force=True)
        engine.client().volumes.get(name).remove()

    def update(self, service: str, image: str, state: str = "completed") -> None:
        """A rolling update of one service to another image; fails unless swarm says in the end that it is `state`."""
        name = f"{self.name}_{service}"
        command = ["docker", "service", "update", "--quiet", "--no-resolve-image", "--image", image, name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5 * DEADLINE_S)

        def status() -> dict[str, str]:
            found: dict[str, str] = engine.client().services.get(name).attrs["UpdateStatus"]
            return found

        # The command returns when all tasks run, also while swarm still waits whether the last one stays.
        wait_until(
            lambda: status()["State"] not in ("updating", "rollback_started"), "the update has ended", _DEADLINE_S, 0.3
        )
        assert status()["State"] == state, f"{status()}\n{done.stdout}\n{done.stderr}"

    def client(self) -> Container:
        """The container of the service that is a client on the stack's network."""
        wait_until(lambda: self.containers("client"), "the client runs", _DEADLINE_S, 0.3)
        return self.containers("client")[0]

    def python(self, program: str, *arguments: str) -> str:
        """Output of a Python program in the client's container."""
        status, out = self.client().exec_run(["python3", "-c", program, *arguments])
        assert isinstance(out, bytes)  # in pieces only where that is asked for
        assert status == 0, out.decode()
        return out.decode().strip()

    def logs(self) -> str:
        parts = [engine.command("stack", "ps", "--no-trunc", self.name)]
        parts += [f"--- {each.name}\n{each.logs(tail=30).decode()}" for each in self._all_containers()]
        return "\n".join(parts)


@contextlib.contextmanager
def stack(
    name: str, image: str, overlays: Sequence[str | Path], datanodes: int, **env: str
) -> Iterator[Stack]:
    """A stack that is deployed; removed with its volumes."""
    made = Stack(name, image, overlays, **env)
    try:
        made.deploy(datanodes)
        made.wait_settled()
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.remove(volumes=True)


@contextlib.contextmanager
def load(on: Stack, *options: str) -> Iterator[None]:
    """Reads and writes from the client on the stack's network while the context lasts; fails where one failed."""
    client = on.client()
    client.exec_run(["rm", "-f", "/tmp/stop"])
    assert client.id is not None
    command = ["docker", "exec", "-i", client.id, "python3", "-", "http://name:8180/", *options]
    with _load(command, lambda: client.exec_run(["touch", "/tmp/stop"])):
        yield


@contextlib.contextmanager
def load_from_outside(target: str | Path, folder: Path, pause_s: float = 0.0) -> Iterator[dict[str, str]]:
    """The same from this machine, by HTTP (`target` is a namenode's URL) or in a directory of a mount.

    Afterwards the yielded dictionary has the SHA-256 of each file that is there, by its path below that directory.
    """
    stop = folder / f"stop-{uuid.uuid4()}"
    environment = ["env", f"PYTHONPATH={ROOT}", f"LOAD_STOP={stop}", f"LOAD_PAUSE={pause_s}"]
    with _load([*environment, sys.executable, "-", str(target)], stop.touch) as digests:
        yield digests


@contextlib.contextmanager
def _load(command: Sequence[str], stop: Callable[[], object]) -> Iterator[dict[str, str]]:
    with (ROOT / "tests/swarm/load.py").open("rb") as program:
        process = subprocess.Popen(command, stdin=program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # a first round is done
    digests: dict[str, str] = {}
    try:
        yield digests
    finally:
        stop()
        try:
            out, err = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, err.decode()
    result = json.loads(out.splitlines()[-1])
    print(f"load: {result['counts']}")
    assert result["failures"] == []
    assert min(result["counts"].values()) > 0
    digests.update(result["digests"])
