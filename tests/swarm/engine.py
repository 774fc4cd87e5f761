"""A Docker engine and the project's image on it, for tests: a running dockerd is used, else one is started and ended.

No image is pulled. The base is Debian, made with debootstrap once and kept by the engine under `BASE`.
What the `docker` package has no call for (stacks, `run --rm` with its volumes) goes through the command line.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
from docker import DockerClient

from tests.cluster.real_cluster import ROOT, wait_until
from tests.deadline import DEADLINE_S

BASE = "dfs-test-base:bookworm"
IMAGE = "dfs-test:latest"
LONG_S = 10 * DEADLINE_S
"""For what fetches packages or makes an image: minutes, on a slow machine with a slow network."""
_PROGRAMS = ("docker", "dockerd", "docker-compose", "debootstrap")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_DEBIAN = "http://deb.debian.org/debian"


def missing() -> str:
    """Why no engine can be had here; empty where one can."""
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    return "" if os.geteuid() == 0 else "needs root"


def run(
    words: Sequence[str | Path], *, env: dict[str, str] | None = None, folder: Path = ROOT, timeout_s: float = LONG_S
) -> str:
    """Standard output of a command; fails with its standard error."""
    done = subprocess.run(
        words, env=os.environ | (env or {}), cwd=folder, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def command(*arguments: str | Path, timeout_s: float = LONG_S) -> str:
    """What `docker ARGUMENTS` prints."""
    return run(["docker", *arguments], timeout_s=timeout_s).strip()


@functools.cache
def client() -> DockerClient:
    """For the engine that runs."""
    return docker.from_env()


def answers() -> bool:
    return subprocess.run(["docker", "version"], capture_output=True, timeout=DEADLINE_S).returncode == 0


@contextlib.contextmanager
def running_engine(folder: Path) -> Iterator[None]:
    """An engine that answers. One that this started is ended with the context."""
    if answers():
        try:
            yield
        finally:
            _forget_client()
        return
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(["dockerd"], stdout=output, stderr=output)
    try:

        def started() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            return answers()

        wait_until(started, f"dockerd answers, {log}", pause_s=0.3)
        yield
    finally:
        _forget_client()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _forget_client() -> None:
    if client.cache_info().currsize:
        client().close()
    client.cache_clear()


@contextlib.contextmanager
def swarm() -> Iterator[None]:
    """The engine as the one host of a swarm. A swarm that was there before stays."""
    if client().info()["Swarm"]["LocalNodeState"] == "active":
        yield
        return
    client().swarm.init(advertise_addr="127.0.0.1")
    try:
        yield
    finally:
        client().swarm.leave(force=True)


def make_base() -> None:
    """Debian with python3 and venv, and the certificates that this machine trusts."""
    if client().images.list(BASE):
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder, "root")
        mirror = os.environ.get("DEBIAN_MIRROR", _DEBIAN)
        packages = "--include=python3,python3-venv,ca-certificates"
        run(["debootstrap", "--variant=minbase", packages, "bookworm", root, mirror])
        shutil.rmtree(root / "var/cache/apt/archives")
        shutil.rmtree(root / "var/lib/apt/lists")
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
        archive = Path(folder, "root.tar")
        run(["tar", "-C", root, "-cf", archive, "."])
        command("import", "-c", f"ENV PIP_CERT={_CERTIFICATES}", archive, BASE)


def build_image() -> None:
    """The project's image, as the compose files name it in these tests."""
    make_base()
    # The host's network: the way to the package index is the machine's own.
    command("build", "--network", "host", "--build-arg", f"BASE_IMAGE={BASE}", "--tag", IMAGE, ROOT)


def derive(tag: str, *instructions: str) -> str:
    """The name of another image of the project: the one of these tests, changed by instructions of a Dockerfile."""
    name = f"{IMAGE.split(':')[0]}:{tag}"
    dockerfile = io.BytesIO("\n".join([f"FROM {IMAGE}", *instructions]).encode())
    client().images.build(fileobj=dockerfile, tag=name, rm=True)
    return name
