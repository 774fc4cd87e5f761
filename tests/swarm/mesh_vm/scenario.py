"""What is shown behind a swarm's true routing mesh. Runs in the machine, in a container of the image, on the host's
network, with Docker's socket: the stack is deployed, and its ports are published through ingress.

Argument: the address that the swarm advertises.
"""

import contextlib
import hashlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from http_client import HttpNameNode

HOST = sys.argv[1]
URL = f"http://{HOST}:8180/"
MOUNT = Path("/mnt")
PIECE_BYTES, PIECES, PIECE_PAUSE_S = 256 << 10, 24, 0.5
"""What is written while a datanode is killed: so many pieces before and after it, more than is ever on its way."""
DATANODES = 3
GETS = 18
DEADLINE_S = 900.0
"""An emulated processor takes ten times as long, and may have to share the true one."""
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
        with urllib.request.urlopen(f"{URL}cluster", timeout=DEADLINE_S) as answer:
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
    with urllib.request.urlopen(f"{URL}fs{path}", timeout=DEADLINE_S) as answer:
        content: bytes = answer.read()
    return content


def new_client() -> HttpNameNode:
    return HttpNameNode(URL, timeout_s=DEADLINE_S)


@contextlib.contextmanager
def load(target: str = URL, *options: str, pause_s: float = 1.0) -> Iterator[dict[str, str]]:
    """Reads and writes while the context lasts; fails where one failed. Yields what `load.py` tells of files."""
    stop = Path("/tmp", f"stop-{uuid.uuid4()}")
    process = subprocess.Popen(
        [sys.executable, "/job/load.py", target, *options],
        env=os.environ
        | {"LOAD_STOP": str(stop), "LOAD_PAUSE": str(pause_s), "LOAD_PATIENCE": str(DEADLINE_S)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # a first round is done
    digests: dict[str, str] = {}
    try:
        yield digests
    finally:
        stop.touch()
        try:
            out, _ = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    result = json.loads(out.splitlines()[-1])
    say(f"load: {result['counts']}, failures: {len(result['failures'])}")
    assert not result["failures"], result["failures"]
    digests.update(result["digests"])


@contextlib.contextmanager
def mounted() -> Iterator[None]:
    options = f"cache=16,timeout={DEADLINE_S:g}"
    process = subprocess.Popen([sys.executable, "/opt/dfs/app/dfs.py", "-f", "-o", options, str(MOUNT), HOST])
    try:
        wait_until(lambda: MOUNT.is_mount() or process.poll() is not None, "the mount is there")
        assert process.poll() is None, "it ended"
        yield
    finally:
        process.terminate()
        status = process.wait(DEADLINE_S)
    assert status == 0, f"the mount ended with status {status}"


def every_datanode_answers() -> None:
    """Connections are spread over all datanodes, and what any of them sends is right."""
    content = bytes(range(256)) * 1000
    with new_client() as dfs:
        dfs.tee("/got", content)
    assert all(get("/got") == content for _ in range(GETS))
    # Nobody has been sent a file before.
    shares = {container: round(served(container) / len(content)) for container in containers("data")}
    assert sum(shares.values()) == GETS
    say(f"{GETS} GETs, by datanode: {sorted(shares.values())}")
    assert len(shares) == DATANODES
    assert min(shares.values()) > 0


class Stream:
    """Bytes that go on until a datanode has been killed in their middle. `digest` is theirs when all are given."""

    def __init__(self) -> None:
        self.begun, self.killed = threading.Event(), threading.Event()
        self.digest = ""

    def pieces(self) -> Iterator[bytes]:
        known = hashlib.sha256()
        given, left = 0, PIECES
        while left:
            piece = random.randbytes(PIECE_BYTES)
            known.update(piece)
            yield piece
            given += 1
            if given == PIECES:
                self.begun.set()
            if self.killed.is_set():
                left -= 1
            time.sleep(PIECE_PAUSE_S)
        self.digest = known.hexdigest()


def put(stream: Stream) -> None:
    """In one request: nothing is sent again."""
    connection = http.client.HTTPConnection(HOST, 8180, timeout=DEADLINE_S)
    connection.request("PUT", "/fs/put", body=stream.pieces())
    answer = connection.getresponse()
    assert answer.status == 201, (answer.status, answer.read())
    connection.close()


def write_on_mount(stream: Stream) -> None:
    with (MOUNT / "large").open("wb", buffering=0) as file:
        for piece in stream.pieces():
            assert file.write(piece) == len(piece)
        os.fsync(file.fileno())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def a_datanode_is_killed_in_the_middle_of_writes() -> None:
    """Of a PUT, of a large file on a mount, and of many small calls there."""
    victim = containers("data")[0]
    streams = {"/put": Stream(), "/large": Stream()}
    with mounted():
        (MOUNT / "work").mkdir()
        with load(str(MOUNT / "work"), pause_s=2.0) as digests, ThreadPoolExecutor() as pool:
            ends = [pool.submit(put, streams["/put"]), pool.submit(write_on_mount, streams["/large"])]
            try:
                wait_until(
                    lambda: all(each.begun.is_set() for each in streams.values()) or any(end.done() for end in ends),
                    "a PUT and a file are begun",
                )
                docker("kill", victim)
                wait_until(lambda: victim not in containers("data"), "a datanode is gone in the middle of both")
            finally:
                for stream in streams.values():
                    stream.killed.set()
            for end in ends:
                end.result()
            say("both have ended well")
            wait_until(lambda: len(containers("data")) == DATANODES and settled() and alive() == DATANODES, "healed")
        assert sha256((MOUNT / "put").read_bytes()) == streams["/put"].digest
    with new_client() as dfs:
        wanted = {path: stream.digest for path, stream in streams.items()}
        wanted |= {f"/work/{path}": digest for path, digest in digests.items()}
        assert {path: sha256(dfs.cat(path)) for path in wanted} == wanted
        wait_until(lambda: dfs.fsck().healthy, f"the cluster is whole, {len(wanted)} files are right")


def datanodes_are_updated() -> None:
    before = set(containers("data"))
    with load(URL, "plain", pause_s=3.0):
        docker("service", "update", "--quiet", "--force", "dfs_data")
    assert before.isdisjoint(containers("data"))
    say("datanodes updated")


def the_namenode_moves_to_an_empty_volume() -> None:
    with new_client() as dfs:
        dfs.tee("/moved", b"still here")
        copied = dfs.status().metadata.copied_until
        wait_until(lambda: (dfs.status().metadata.copied_until or 0) > (copied or 0) + 5, "metadata is copied")
    docker("service", "scale", "--detach", "dfs_name=0")
    wait_until(lambda: not docker("ps", "-aq", "--filter", "volume=dfs_name"), "no namenode")
    docker("volume", "rm", "dfs_name")
    docker("service", "scale", "--detach", "dfs_name=1")
    wait_until(lambda: alive() == DATANODES, "the namenode is back on an empty volume")
    with new_client() as dfs:
        assert dfs.cat("/moved") == b"still here"
        assert dfs.fsck().healthy


wait_until(lambda: alive() == DATANODES and settled(), f"{DATANODES} datanodes alive")
for step in (
    every_datanode_answers,
    a_datanode_is_killed_in_the_middle_of_writes,
    datanodes_are_updated,
    the_namenode_moves_to_an_empty_volume,
):
    say(f"--- {step.__name__}")
    step()
say("all shown")
