"""The commands for mounts that the README shows work as they stand there."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tests.cluster.real_cluster import ROOT, Cluster
from tests.mount.real_mount import run

_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_readme_mounts_and_unmounts(cluster: Cluster, tmp_path: Path) -> None:
    texts = [text for text in _CONSOLE.findall((ROOT / "README.md").read_text()) if "./mnt localhost" in text]
    assert len(texts) == 1
    (tmp_path / "dfs.py").symlink_to(ROOT / "dfs.py")
    shutil.copytree(ROOT / "dfslib", tmp_path / "dfslib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mnt").mkdir()
    text = texts[0].replace("localhost", f"127.0.0.1 {cluster.namenode.port}")
    try:
        assert "copy" not in run("ls mnt", tmp_path)
        out = run(text, tmp_path, PATH=f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin")
        assert "model.py" in out
    finally:
        run(f"while grep -q ' {tmp_path}/mnt ' /proc/self/mountinfo; do umount -l {tmp_path}/mnt; done")
