"""A stack of ours on a swarm of one host: deployed, watched, used from within, removed with or without its volumes."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import engine
from compose import files, settings
from real_cluster import ROOT, alive_datanodes, wait_until

INSIDE = ROOT / "tests" / "swarm" / "inside.yml"
_DEADLINE_S = 120.0
_PORT = re.compile(r":(\d+)->8181/tcp")


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
        subprocess.run(command, input=config, text=True, check=True, capture_output=True, timeout=120)
        self.wait_alive(datanodes)

    def wait_alive(self, count: int) -> None:
        wait_until(lambda: alive_datanodes(self.url) == count, f"{count} datanodes alive", _DEADLINE_S, 0.3)

    def wait_settled(self) -> None:
        """Every service has the tasks that it is to have, all of them healthy."""
        wait_until(self._is_settled, f"all tasks of {self.name} run", _DEADLINE_S, 0.3)

    def _is_settled(self) -> bool:
        lines = engine.docker("stack", "services", self.name, "--format", "{{.Replicas}}").splitlines()
        return all(len(set(line.split()[0].split("/"))) == 1 for line in lines)

    def kill(self, service: str) -> None:
        """One container of a service; returns when swarm has put another one in its place, which is healthy."""
        before = self.containers(service)
        engine.docker("kill", before[0])

        def is_replaced() -> bool:
            now = self.containers(service)
            return before[0] not in now and len(now) == len(before)

        wait_until(is_replaced, f"another one runs as {service}", _DEADLINE_S, 0.2)
        self.wait_settled()

    def remove(self, volumes: bool = False) -> None:
        """Return when no container of it is left, so that it can be deployed anew."""
        engine.docker("stack", "rm", self.name)
        label = f"label=com.docker.stack.namespace={self.name}"
        for kind in (("ps", "-aq"), ("network", "ls", "-q")):
            wait_until(
                lambda kind=kind: not engine.docker(*kind, "--filter", label), f"{self.name} is removed", 120, 0.3
            )
        if volumes:
            names = engine.docker("volume", "ls", "-q", "--filter", f"name={self.name}_").split()
            if names:
                engine.docker("volume", "rm", *names)

    def containers(self, service: str) -> list[str]:
        """Ids of the running containers of a service."""
        return engine.docker("ps", "-q", "--no-trunc", "--filter", self._label(service)).split()

    def _label(self, service: str) -> str:
        return f"label=com.docker.swarm.service.name={self.name}_{service}"

    def health(self, container: str) -> str:
        """What its last five health checks have said."""
        state = engine.inspect("container", container)["State"]
        assert isinstance(state, dict)
        return "".join(check["Output"] for check in state["Health"]["Log"])

    def datanode_ports(self, *conditions: str) -> list[int]:
        """The ports of this machine at which the datanodes answer; those of which "health=healthy", for instance."""
        filters = [part for condition in [self._label("data"), *conditions] for part in ("--filter", condition)]
        lines = engine.docker("ps", *filters, "--format", "{{.Ports}}").splitlines()
        return [int(_PORT.findall(line)[0]) for line in lines if _PORT.search(line)]

    def scale(self, service: str, count: int) -> None:
        engine.docker("service", "scale", "--detach", f"{self.name}_{service}={count}")

    def remove_volume(self, volume: str) -> None:
        """Of a service that is scaled to none; with the containers of earlier tasks, which swarm keeps."""
        name = f"{self.name}_{volume}"
        containers = engine.docker("ps", "-aq", "--filter", f"volume={name}").split()
        if containers:
            engine.docker("rm", "--force", *containers)
        engine.docker("volume", "rm", name)

    def update(self, service: str, image: str, state: str = "completed") -> None:
        """A rolling update of one service to another image; fails unless swarm says in the end that it is `state`."""
        name = f"{self.name}_{service}"
        command = ["docker", "service", "update", "--quiet", "--no-resolve-image", "--image", image, name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        status = engine.inspect("service", name)["UpdateStatus"]
        assert isinstance(status, dict)
        assert status["State"] == state, f"{status}\n{done.stdout}\n{done.stderr}"

    def client(self) -> str:
        """The container of the service that is a client on the stack's network."""
        wait_until(lambda: self.containers("client"), "the client runs", _DEADLINE_S, 0.3)
        return self.containers("client")[0]

    def python(self, program: str, *arguments: str) -> str:
        """Output of a Python program in the client's container."""
        return engine.docker("exec", self.client(), "python3", "-c", program, *arguments)

    def logs(self) -> str:
        label = f"label=com.docker.stack.namespace={self.name}"
        parts = [engine.docker("stack", "ps", "--no-trunc", self.name)]
        for container in engine.docker("ps", "-aq", "--filter", label).split():
            done = subprocess.run(["docker", "logs", "--tail", "30", container], capture_output=True, text=True)
            parts.append(f"--- {container}\n{done.stdout}{done.stderr}")
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
    engine.docker("exec", client, "rm", "-f", "/tmp/stop")
    command = ["docker", "exec", "-i", client, "python3", "-", "http://name:8180/", *options]
    with _load(command, lambda: engine.docker("exec", client, "touch", "/tmp/stop")):
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
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, err.decode()
    result = json.loads(out.splitlines()[-1])
    print(f"load: {result['counts']}")
    assert result["failures"] == []
    assert min(result["counts"].values()) > 0
    digests.update(result["digests"])
