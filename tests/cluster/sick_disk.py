"""A disk that fails to write, for the kernel's own ext4: its image lies in a small file system that is filled.

Needs root.

What the image has no room for fails as on a bad disk, after write(2) has succeeded; what lies there is still replaced.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.real_cluster import wait_until

AVAILABLE = os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None
_IMAGE_BYTES = 512 << 20
_ROOM_BYTES = 96 << 20


class SickDisk:
    """`mount` is where it is mounted. `close` needs that nobody uses it any more."""

    def __init__(self, folder: Path, *, journal: bool) -> None:
        self.mount = folder / "sick"
        self._host = folder / "sick-host"
        for path in (self.mount, self._host):
            path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM_BYTES}", "tmpfs", str(self._host)], check=True)
        self._ballast = self._host / "ballast"
        image = self._host / "image"
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        features = [] if journal else ["-O", "^has_journal"]
        options = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-E", options, *features, str(image)], check=True)
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._host / "image"), str(self.mount)], check=True)

    def fail(self) -> None:
        """From now on what is written to new places fails."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    def heal(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def cut_power(self) -> None:
        """What is on disk is there, and nothing else. Nobody may use it now."""
        subprocess.run(["umount", str(self.mount)], check=True)
        self._mount()

    def close(self) -> None:
        subprocess.run(["umount", str(self.mount)], check=True)
        # The loop device lets go of the image a moment later.
        wait_until(lambda: subprocess.run(["umount", str(self._host)]).returncode == 0, "the image is free")
