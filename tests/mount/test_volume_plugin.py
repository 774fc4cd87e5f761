"""The volume plugin as Docker talks to it: JSON over a unix socket, and real mounts behind it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.real_cluster import ROOT, Cluster, MakeCluster, wait_until
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import run


class Plugin:
    """A `dfs.py volume-plugin` process with its state in a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.socket = folder / "dfs.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def mountpoint(self) -> Path:
        return self.folder / "state" / "mnt"

    @property
    def mounted(self) -> bool:
        return f" {self.mountpoint} " in Path("/proc/self/mountinfo").read_text()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, str(ROOT / "dfs.py"), "--url", self.url, "volume-plugin",
                    "--socket", str(self.socket), "--folder", str(self.folder / "state"), "-o", "timeout=3",
                ],
                stderr=log,
            )  # fmt: skip
        wait_until(lambda: self.answers(), "the plugin answers")

    def answers(self) -> bool:
        try:
            implemented: list[str] = self("Plugin.Activate")["Implements"]
        except OSError:
            return False
        return implemented == ["VolumeDriver"]

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def __call__(self, method: str, **request: Any) -> dict[str, Any]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.socket))
            connection.request("POST", f"/{method}", body=json.dumps(request))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def driver(self, method: str, **request: Any) -> dict[str, Any]:
        answer = self(f"VolumeDriver.{method}", **request)
        assert answer["Err"] == ""
        return answer


@pytest.fixture
def make_plugin(tmp_path: Path) -> Iterator[Callable[[str], Plugin]]:
    made: list[Plugin] = []

    def make(url: str) -> Plugin:
        made.append(Plugin(url, tmp_path))
        made[-1].start()
        return made[-1]

    yield make
    for plugin in made:
        if plugin.process is not None and plugin.process.poll() is None:
            plugin.end(signal.SIGTERM)
        while plugin.mounted:
            run(["umount", "-l", str(plugin.mountpoint)])


def test_volumes_are_directories_of_the_tree(cluster: Cluster, make_plugin: Callable[[str], Plugin]) -> None:
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="web", Opts={"subdir": "/projects"})
    plugin.driver("Create", Name="web", Opts={"subdir": "/projects/"})
    plugin.driver("Create", Name="plain", Opts=None)
    assert "web is /projects" in plugin("VolumeDriver.Create", Name="web", Opts={"subdir": "/other"})["Err"]
    assert plugin.driver("Get", Name="web")["Volume"]["Status"] == {"subdir": "/projects", "users": 0}
    assert not plugin.mounted
    web = Path(plugin.driver("Mount", Name="web", ID="one")["Mountpoint"])
    assert plugin.driver("Mount", Name="web", ID="two")["Mountpoint"] == str(web)
    plain = Path(plugin.driver("Mount", Name="plain", ID="three")["Mountpoint"])
    run(f"echo shared > {web}/f; echo own > {plain}/g")
    listed = run([sys.executable, str(ROOT / "dfs.py"), "--url", cluster.url, "ls", "/projects", "/volumes/plain"])
    assert "f" in listed.split()
    assert "g" in listed.split()
    assert "in use" in plugin("VolumeDriver.Remove", Name="web")["Err"]
    plugin.driver("Unmount", Name="web", ID="one")
    plugin.driver("Unmount", Name="plain", ID="three")
    assert run(f"cat {web}/f") == "shared\n"
    plugin.driver("Unmount", Name="web", ID="two")
    assert not plugin.mounted
    plugin.driver("Remove", Name="web")
    assert [volume["Name"] for volume in plugin.driver("List")["Volumes"]] == ["plain"]
    assert "no volume" in plugin("VolumeDriver.Mount", Name="web", ID="x")["Err"]


def test_bad_requests_change_nothing(cluster: Cluster, make_plugin: Callable[[str], Plugin]) -> None:
    plugin = make_plugin(cluster.url)
    for name, options in (
        ("", {}), ("a/b", {}), ("..", {}), ("v", {"subdir": "relative"}), ("v", {"subdir": "/a/../b"}),
        ("v", {"size": "1"}),
    ):  # fmt: skip
        assert plugin("VolumeDriver.Create", Name=name, Opts=options)["Err"]
    assert plugin("VolumeDriver.Create", Name=5)["Err"]
    assert plugin.driver("List")["Volumes"] == []
    assert plugin.driver("Capabilities")["Capabilities"] == {"Scope": "global"}


def test_containers_go_on_while_the_plugin_is_restarted(cluster: Cluster, make_plugin: Callable[[str], Plugin]) -> None:
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="v", Opts={})
    place = Path(plugin.driver("Mount", Name="v", ID="one")["Mountpoint"])
    for number in (signal.SIGTERM, signal.SIGKILL):
        plugin.end(number)
        run(f"echo {number} > {place}/f; cat {place}/f")
        plugin.start()
        assert plugin.driver("Path", Name="v")["Mountpoint"] == str(place)
    plugin.driver("Unmount", Name="v", ID="one")
    assert not plugin.mounted


def test_nothing_is_handed_out_while_the_cluster_is_away(
    make_cluster: MakeCluster, make_plugin: Callable[[str], Plugin]
) -> None:
    cluster = make_cluster(1)
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="v", Opts={})
    cluster.namenode.kill()
    assert plugin("VolumeDriver.Mount", Name="v", ID="one")["Err"]
    assert plugin.driver("Get", Name="v")["Volume"]["Status"]["users"] == 0
    assert list(plugin.mountpoint.iterdir()) == []
    cluster.namenode.start()
    cluster.wait_alive()
    place = Path(plugin.driver("Mount", Name="v", ID="one")["Mountpoint"])
    run(f"echo x > {place}/f")
    cluster.namenode.kill()
    assert plugin("VolumeDriver.Mount", Name="v", ID="two")["Err"]
    cluster.namenode.start()
    cluster.wait_alive()
    wait_until(lambda: not plugin("VolumeDriver.Mount", Name="v", ID="two")["Err"], "it is handed out again")
