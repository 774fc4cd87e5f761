"""Every variable: its default, what is refused, and how server.py says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dfslib.config import SETTINGS, ConfigError, Setting, load, load_for
from dfslib.model import REPLICATION_ALL

ROOT = Path(__file__).parents[2]
BY_NAME = {setting.name: setting for setting in SETTINGS}
REQUIRED = [setting.name for setting in SETTINGS if setting.required]

GOOD: dict[str, dict[str, Any]] = {
    "DFS_NODE_CLASS": {"name_node.NameNode": "name_node.NameNode"},
    "DFS_HOST": {"localhost": "localhost", "::1": "::1"},
    "DFS_PORT": {"1": 1, "65535": 65535},
    "DFS_LOG_LEVEL": {"debug": "DEBUG", "ERROR": "ERROR"},
    "DFS_STOP_TIMEOUT": {"0.5": 0.5, "30": 30.0},
    "DFS_DB_PATH": {"./nodes": Path("nodes"), "/with space": Path("/with space")},
    "DFS_REPLICATION": {"all": REPLICATION_ALL, "1": 1, "64": 64},
    "DFS_MIN_REPLICAS": {"1": 1, "3": 3},
    "DFS_SUSPECT_AFTER": {"5": 5.0},
    "DFS_DEAD_AFTER": {"60": 60.0},
    "DFS_STALL_TIMEOUT": {"10": 10.0},
    "DFS_BODY_TIMEOUT": {"60": 60.0},
    "DFS_GARBAGE_DELAY": {"1e3": 1000.0},
    "DFS_CHECKPOINT_EVERY": {"0.5": 0.5},
    "DFS_SESSION_GRACE": {"0.5": 0.5},
    "DFS_NEW_CLUSTER": {"true": True, "False": False},
    "DFS_SCRUB_EVERY": {"1e3": 1000.0},
    "DFS_FS_ROOT": {"./rootfs": Path("rootfs")},
    "DFS_NAMENODE_URL": {"http://h": "http://h/", "https://h:1/p": "https://h:1/p/", "http://[::1]:8/": "http://[::1]:8/"},
    "DFS_ADVERTISE_HOST": {"node-1": "node-1"},
    "DFS_PUBLIC_URL": {"http://h:8181/": "http://h:8181/"},
    "DFS_REPAIR_RATE": {"1": 1, "100MiB": 100 << 20},
    "DFS_RESERVED_SPACE": {"0": 0, "512M": 512 << 20, "1GiB": 1 << 30, "2 tb": 2 << 40, "1024k": 1 << 20},
    "DFS_URL": {"http://h": "http://h/"},
}  # fmt: skip

SECONDS = ["0", "-1", "nan", "inf", "soon", "1e9", "5s"]
URLS = ["h:8180", "ftp://h/", "http://", "http://h:99999/", "http://h:x/", "http://h/?q", "http://h/#f", "http://a b/"]
BAD: dict[str, list[str]] = {
    "DFS_NODE_CLASS": ["  "],
    "DFS_HOST": [" "],
    "DFS_PORT": ["0", "65536", "-1", "http", "80 ", "8_0", "\u0668", "1" * 5000],
    "DFS_LOG_LEVEL": ["loud", "10"],
    "DFS_STOP_TIMEOUT": SECONDS,
    "DFS_DB_PATH": ["a\0b"],
    "DFS_REPLICATION": ["0", "-1", "65", "ALL", "two", "1.0", "\u0661"],
    "DFS_MIN_REPLICAS": ["0", "-1", "x", "1.5"],
    "DFS_SUSPECT_AFTER": SECONDS,
    "DFS_DEAD_AFTER": SECONDS,
    "DFS_STALL_TIMEOUT": SECONDS,
    "DFS_BODY_TIMEOUT": SECONDS,
    "DFS_GARBAGE_DELAY": SECONDS,
    "DFS_CHECKPOINT_EVERY": SECONDS,
    "DFS_SESSION_GRACE": SECONDS,
    "DFS_NEW_CLUSTER": ["yes", "1", "tru"],
    "DFS_SCRUB_EVERY": SECONDS,
    "DFS_FS_ROOT": ["a\0b"],
    "DFS_NAMENODE_URL": URLS,
    "DFS_ADVERTISE_HOST": ["\t"],
    "DFS_PUBLIC_URL": URLS,
    "DFS_REPAIR_RATE": ["0", "-1", "fast"],
    "DFS_RESERVED_SPACE": ["-1", "1.5G", "many", "1P", "G", "\u0661"],
    "DFS_URL": URLS,
}


def test_every_setting_is_tried_here() -> None:
    assert GOOD.keys() == BAD.keys() == BY_NAME.keys()
    assert len(BY_NAME) == len(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_defaults_parse(setting: Setting) -> None:
    assert setting.readers
    assert setting.meaning
    assert not (setting.required and setting.default)
    if setting.default is not None:
        assert load({}, setting.name)[setting.name] == setting.parse(setting.default)
    elif not setting.required:
        assert load({}, setting.name) == {setting.name: None}


@pytest.mark.parametrize(
    ("name", "text", "value"), [(n, t, v) for n, values in GOOD.items() for t, v in values.items()]
)
def test_what_is_well_formed_is_read(name: str, text: str, value: Any) -> None:
    assert load({name: text}, name) == {name: value}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts], ids=ascii)
def test_what_is_malformed_is_refused_by_name_in_one_line(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({name: text}, name)
    assert str(refused.value).startswith(f"{name}=")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_what_is_required_and_missing_or_empty_is_named(name: str, value: str | None) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is not set"):
        load({} if value is None else {name: value}, name)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if not s.required], ids=lambda setting: setting.name)
def test_empty_counts_as_unset(setting: Setting) -> None:
    assert load({setting.name: ""}, setting.name) == load({}, setting.name)


def test_each_reader_gets_its_own() -> None:
    env = {"DFS_DB_PATH": "db", "DFS_PORT": "no port"}
    assert load_for("namenode", env)["DFS_DB_PATH"] == Path("db")
    with pytest.raises(ConfigError, match="DFS_PORT"):
        load_for("datanode", {**env, "DFS_FS_ROOT": "r", "DFS_NAMENODE_URL": "http://h"})


NAMENODE = {"DFS_NODE_CLASS": "name_node.NameNode", "DFS_DB_PATH": "/nonexistent/never/made"}
DATANODE = {
    "DFS_NODE_CLASS": "data_node.DataNode",
    "DFS_FS_ROOT": "/nonexistent/never/made",
    "DFS_NAMENODE_URL": "http://localhost:1/",
}


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "DFS_NODE_CLASS"),
        ({"DFS_NODE_CLASS": ""}, "DFS_NODE_CLASS"),
        ({"DFS_NODE_CLASS": "NameNode"}, "DFS_NODE_CLASS"),
        ({"DFS_NODE_CLASS": "no_such_module.Node"}, "DFS_NODE_CLASS"),
        ({"DFS_NODE_CLASS": "name_node.NoSuchNode"}, "DFS_NODE_CLASS"),
        ({"DFS_NODE_CLASS": ".name_node.NameNode"}, "DFS_NODE_CLASS"),
        ({"DFS_NODE_CLASS": "name_node."}, "DFS_NODE_CLASS"),
        ({"DFS_NODE_CLASS": "os.path"}, "DFS_NODE_CLASS"),
        ({**NAMENODE, "DFS_DB_PATH": ""}, "DFS_DB_PATH"),
        ({**NAMENODE, "DFS_PORT": "80a"}, "DFS_PORT"),
        ({**NAMENODE, "DFS_LOG_LEVEL": "loud\nvery"}, "DFS_LOG_LEVEL"),
        ({**NAMENODE, "DFS_REPLICATION": "0"}, "DFS_REPLICATION"),
        ({**DATANODE, "DFS_FS_ROOT": ""}, "DFS_FS_ROOT"),
        ({**DATANODE, "DFS_NAMENODE_URL": ""}, "DFS_NAMENODE_URL"),
        ({**DATANODE, "DFS_NAMENODE_URL": "localhost:8180"}, "DFS_NAMENODE_URL"),
        ({**DATANODE, "DFS_RESERVED_SPACE": "much"}, "DFS_RESERVED_SPACE"),
    ],
    ids=str,
)
def test_server_says_in_one_line_what_is_wrong_and_exits_with_2(env: dict[str, str], named: str) -> None:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DFS_")}
    result = subprocess.run(
        [sys.executable, "server.py"], cwd=ROOT, env={**inherited, **env}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert named in result.stderr
