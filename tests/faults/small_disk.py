"""A small disk of a datanode's own: an ext4 file system in a file, which can be filled without harm. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.real_cluster import Server

AVAILABLE = os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None
_SIZE_BYTES = 1 << 30


class SmallDisk:
    """Made before the server starts; `close` unmounts it after the server has ended."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self._mount = folder / "small-disk"
        self._mount.mkdir()
        image = folder / "small-disk.img"
        with image.open("wb") as file:
            file.truncate(_SIZE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(self._mount)], check=True)
        server.env["DFS_FS_ROOT"] = str(self._mount / "volume")
        self._ballast = self._mount / "ballast"

    def fill(self) -> None:
        """Leave less than what the datanode keeps in reserve."""
        disk = os.statvfs(self._mount)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - (8 << 20)))

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", str(self._mount)], check=False)
