"""A registry of images on this machine, for what a swarm takes from one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.cluster.real_cluster import free_ports, wait_until
from tests.deadline import DEADLINE_S

_CONFIGURATION = """
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Its address; `folder` holds its images."""
    if shutil.which("docker-registry") is None:
        pytest.skip("no registry of images can run here: docker-registry is not installed")
    (port,) = free_ports(1)
    configuration = folder / "registry.yml"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(configuration)], stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (folder / "registry.log").read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/v2/", timeout=DEADLINE_S).ok
        return False

    try:
        wait_until(answers, "the registry answers")
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
