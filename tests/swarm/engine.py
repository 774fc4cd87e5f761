"""A Docker engine and the project's image on it, for tests: a running dockerd is used, else one is started and ended.

No image is pulled. The base is Debian, made with debootstrap once and kept by the engine under `BASE`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from real_cluster import ROOT, wait_until

BASE = "dfs-test-base:bookworm"
IMAGE = "dfs-test:latest"
_PROGRAMS = ("docker", "dockerd", "docker-compose", "debootstrap")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_DEBIAN = "http://deb.debian.org/debian"


def missing() -> str:
    """Why no engine can be had here; empty where one can."""
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    return "" if os.geteuid() == 0 else "needs root"


def run(command: Sequence[str | Path], *, env: dict[str, str] | None = None, timeout_s: float = 300) -> str:
    """Standard output of a command; fails with its standard error."""
    done = subprocess.run(
        command, env=os.environ | (env or {}), cwd=ROOT, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def docker(*arguments: str | Path, timeout_s: float = 300) -> str:
    return run(["docker", *arguments], timeout_s=timeout_s).strip()


def inspect(kind: str, name: str) -> dict[str, object]:
    """What `docker KIND inspect NAME` says."""
    (found,) = json.loads(docker(kind, "inspect", name))
    return found


def answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, timeout=60).returncode == 0 and bool(
        subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, timeout=60
        ).stdout.strip()
    )


@contextlib.contextmanager
def running_engine(folder: Path) -> Iterator[None]:
    """An engine that answers. One that this started is ended with the context."""
    if answers():
        yield
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
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def swarm() -> Iterator[None]:
    """The engine as the one host of a swarm. A swarm that was there before stays."""
    if docker("info", "--format", "{{.Swarm.LocalNodeState}}") == "active":
        yield
        return
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        yield
    finally:
        docker("swarm", "leave", "--force")


def make_base() -> None:
    """Debian with python3 and venv, and the certificates that this machine trusts."""
    if docker("image", "ls", "--quiet", BASE):
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder, "root")
        mirror = os.environ.get("DEBIAN_MIRROR", _DEBIAN)
        packages = "--include=python3,python3-venv,ca-certificates"
        run(["debootstrap", "--variant=minbase", packages, "bookworm", root, mirror], timeout_s=600)
        shutil.rmtree(root / "var/cache/apt/archives")
        shutil.rmtree(root / "var/lib/apt/lists")
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
        archive = Path(folder, "root.tar")
        run(["tar", "-C", root, "-cf", archive, "."])
        docker("import", "-c", f"ENV PIP_CERT={_CERTIFICATES}", archive, BASE)


def build_image() -> None:
    """The project's image, as the compose files name it in these tests."""
    make_base()
    # The host's network: the way to the package index is the machine's own.
    docker("build", "--network", "host", "--build-arg", f"BASE_IMAGE={BASE}", "--tag", IMAGE, ROOT)


def derive(tag: str, *instructions: str) -> str:
    """The name of another image of the project: the one of these tests, changed by instructions of a Dockerfile."""
    name = f"{IMAGE.split(':')[0]}:{tag}"
    dockerfile = "\n".join([f"FROM {IMAGE}", *instructions])
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, "-"],
        input=dockerfile, text=True, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return name
