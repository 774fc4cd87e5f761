"""Behind a swarm's true routing mesh, in a virtual machine whose kernel has IPVS: the unchanged compose file, three
datanodes, one public address for all of them. `scenario.py` is what happens inside; this makes and boots the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.real_cluster import ROOT
from tests.swarm import engine
from tests.swarm.compose import files

HERE = Path(__file__).parent
MACHINE = Path(os.environ.get("MESH_VM", "/var/tmp/dfs-mesh-vm"))
ADDRESS = "10.99.0.1"
"""What `init` gives to the machine."""
_BOOT_S = 5400
"""Three times what it takes on two cores that have other things to do as well."""


def make_job(folder: Path, image: str) -> None:
    """What the machine finds on its second disk."""
    config = engine.run(
        ["docker-compose", *files(["replicas"]), "config"],
        env={"DFS_IMAGE": image, "DATA_HOST": ADDRESS, "DATA_REPLICAS": "3"},
    )
    (folder / "stack.yml").write_text(config)
    (folder / "image").write_text(image)
    for source in (HERE / "run", HERE / "scenario.py", HERE.parent / "load.py"):
        shutil.copy(source, folder)
    engine.command("save", "--output", folder / "image.tar", image)


def test_the_true_mesh(image: str, tmp_path: Path) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("the mesh's machine cannot run here: qemu-system-x86_64 is not installed")
    began = time.monotonic()
    engine.run([HERE / "build", MACHINE])
    job = tmp_path / "job"
    job.mkdir()
    make_job(job, image)
    print(f"machine and job made in {time.monotonic() - began:.0f} s")
    with subprocess.Popen(
        [HERE / "boot", MACHINE, job, str(_BOOT_S)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as machine:
        assert machine.stdout is not None
        console = []
        for line in machine.stdout:
            console.append(line)
            print(line, end="", flush=True)
    text = "".join(console)
    assert machine.returncode == 0, f"the machine did not switch itself off within {_BOOT_S} s"
    assert "all shown" in text
    assert "mesh: status 0" in text
