"""What is shown behind a swarm's true routing mesh. Runs in the machine, in a container of the image, on the host's
network, with Docker's socket: the stack is deployed, and its ports are published through ingress.

Argument: the address that the swarm advertises.
"""

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

from http_client import HttpNameNode

HOST = sys.argv[1]
URL = f"http://{HOST}:8180/"
DATANODES = 3
GETS = 60
DEADLINE_S = 240.0
began = time.monotonic()


def say(text: str) -> None:
    print(f"scenario {time.monotonic() - began:6.1f} s: {text}", flush=True)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.5)
    say(what)


def containers(service: str) -> list[str]:
    return docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name=dfs_{service}").split()


def settled() -> bool:
    lines = docker("stack", "services", "dfs", "--format", "{{.Replicas}}").splitlines()
    return all(len(set(line.split()[0].split("/"))) == 1 for line in lines)


def alive() -> int:
    try:
        with urllib.request.urlopen(f"{URL}cluster", timeout=20) as answer:
            return sum(node["state"] == "alive" for node in json.load(answer)["nodes"])
    except OSError:
        return -1


def served(container: str) -> float:
    """Bytes of files that a datanode has sent to clients."""
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8181/metrics').read().decode())"
    metrics = docker("exec", container, "python3", "-c", read)
    (line,) = [line for line in metrics.splitlines() if line.startswith("dfs_datanode_sent_bytes_total")]
    return float(line.split()[-1])


def get(path: str) -> bytes:
    """As `curl -L` gets it: a connection of its own, nothing repeated."""
    with urllib.request.urlopen(f"{URL}fs{path}", timeout=60) as answer:
        return answer.read()


@contextlib.contextmanager
def load(*options: str) -> Iterator[None]:
    subprocess.run(["rm", "-f", "/tmp/stop"], check=True)
    command = [sys.executable, "/job/load.py", URL, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # a first round is done
    try:
        yield
    finally:
        subprocess.run(["touch", "/tmp/stop"], check=True)
        out, _ = process.communicate(timeout=DEADLINE_S)
    result = json.loads(out.splitlines()[-1])
    say(f"load: {result['counts']}, failures: {len(result['failures'])}")
    assert not result["failures"], result["failures"]


def every_datanode_answers() -> None:
    """Connections are spread over all datanodes, and what any of them sends is right."""
    content = bytes(range(256)) * 1000
    with HttpNameNode(URL) as dfs:
        dfs.tee("/sixty", content)
    before = {container: served(container) for container in containers("data")}
    assert all(get("/sixty") == content for _ in range(GETS))
    shares = {container: round((served(container) - sent) / len(content)) for container, sent in before.items()}
    say(f"{GETS} GETs, by datanode: {sorted(shares.values())}")
    assert len(shares) == DATANODES
    assert min(shares.values()) > 0


def a_datanode_is_killed() -> None:
    victim = containers("data")[0]
    with load():
        docker("kill", victim)
        wait_until(lambda: victim not in containers("data") and settled() and alive() == DATANODES, "swarm has healed")


def datanodes_are_updated() -> None:
    before = set(containers("data"))
    with load("plain"):
        docker("service", "update", "--quiet", "--force", "dfs_data")
    assert before.isdisjoint(containers("data"))
    say("datanodes updated")


def the_namenode_moves_to_an_empty_volume() -> None:
    with HttpNameNode(URL) as dfs:
        dfs.tee("/moved", b"still here")
        copied = dfs.status().metadata.copied_until
        wait_until(lambda: (dfs.status().metadata.copied_until or 0) > (copied or 0) + 5, "metadata is copied")
    docker("service", "scale", "--detach", "dfs_name=0")
    wait_until(lambda: not docker("ps", "-aq", "--filter", "volume=dfs_name"), "no namenode")
    docker("volume", "rm", "dfs_name")
    docker("service", "scale", "--detach", "dfs_name=1")
    wait_until(lambda: alive() == DATANODES, "the namenode is back on an empty volume")
    with HttpNameNode(URL, timeout_s=DEADLINE_S) as dfs:
        assert dfs.cat("/moved") == b"still here"
        assert dfs.fsck().healthy


wait_until(lambda: alive() == DATANODES and settled(), f"{DATANODES} datanodes alive")
for step in (
    every_datanode_answers,
    a_datanode_is_killed,
    datanodes_are_updated,
    the_namenode_moves_to_an_empty_volume,
):
    say(f"--- {step.__name__}")
    step()
say("all shown")
