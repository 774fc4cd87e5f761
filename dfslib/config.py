"""Every `DFS_*` variable in one table: its form, its default, who reads it. The README's table is checked
against this one. A process reads its environment once, at start, through `load`; inside are typed structs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from dfslib.model import REPLICATION_ALL, REPLICATION_MAX

DEFAULT_PORT: Final = 8180


class ConfigError(Exception):
    """A variable is missing or malformed. The message is one line and names it."""


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _path(value: str) -> Path:
    if not value or "\0" in value:
        raise ValueError("must be a path")
    return Path(value)


def _port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 65535:
        raise ValueError("must be a port from 1 to 65535")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise ValueError("must be a positive number of seconds")
    return seconds


def _count(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise ValueError("must be a whole number from 1")
    return int(value)


def _flag(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return value.lower() == "true"


_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE | re.ASCII)


def _size(value: str) -> int:
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise ValueError("must be a size such as 1073741824, 512M or 1GiB")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2].upper()]


def _rate(value: str) -> int:
    if (rate := _size(value)) < 1:
        raise ValueError("must be at least one byte a second")
    return rate


def parse_replication(value: str) -> int:
    """`all` or a number of copies, as stored in an inode. Raises ValueError."""
    if value == "all":
        return REPLICATION_ALL
    if value.isascii() and value.isdigit() and 1 <= int(value) <= REPLICATION_MAX:
        return int(value)
    raise ValueError(f"must be 'all' or a number of copies from 1 to {REPLICATION_MAX}")


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or any(c.isspace() for c in value):
        raise ValueError("must be a URL such as http://host:8180/")
    return value.rstrip("/") + "/"


def _level(value: str) -> str:
    if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
    return value.upper()


@dataclass(frozen=True)
class Setting:
    """One variable. `default` is what the user would write, or None where there is none to fall back on."""

    name: str
    parse: Callable[[str], Any]
    default: str | None
    readers: tuple[str, ...]
    meaning: str
    required: bool = False


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("DFS_NODE_CLASS", _text, None, ("server",), "class to run, as `module.Class`", required=True),
    Setting("DFS_HOST", _text, "0.0.0.0", ("server", "datanode"), "address or host name to listen on"),
    Setting("DFS_PORT", _port, str(DEFAULT_PORT), ("server", "datanode"), "port to listen on"),
    Setting("DFS_LOG_LEVEL", _level, "INFO", ("server",), "least severe message that is logged"),
    Setting("DFS_STOP_TIMEOUT", _seconds, "30", ("server",), "seconds that running requests have at SIGTERM"),
    Setting("DFS_DB_PATH", _path, None, ("namenode",), "folder of the metadata", required=True),
    Setting("DFS_REPLICATION", parse_replication, "all", ("namenode",), "copies of each block, or `all`"),
    Setting(
        "DFS_MIN_REPLICAS", _count, None, ("namenode",),
        "copies on disk before a write is acknowledged; unset: 2, or 1 while there is a single datanode",
    ),
    Setting("DFS_SUSPECT_AFTER", _seconds, "5", ("namenode",), "seconds of silence until a datanode is avoided"),
    Setting("DFS_DEAD_AFTER", _seconds, "60", ("namenode",), "seconds of silence until a datanode counts as dead"),
    Setting(
        "DFS_STALL_TIMEOUT", _seconds, "10", ("namenode",),
        "seconds without progress until a write goes on without a datanode",
    ),
    Setting(
        "DFS_BODY_TIMEOUT", _seconds, "60", ("namenode", "datanode"),
        "seconds without a byte until an upload is given up",
    ),
    Setting("DFS_GARBAGE_DELAY", _seconds, "60", ("namenode",), "seconds that unused blocks are kept"),
    Setting(
        "DFS_SESSION_GRACE", _seconds, "60", ("namenode",),
        "seconds that the locks and open files of a mount are kept without a connection",
    ),
    Setting(
        "DFS_CHECKPOINT_EVERY", _seconds, "5", ("namenode",), "seconds between copies of the metadata to datanodes"
    ),
    Setting(
        "DFS_NEW_CLUSTER", _flag, "false", ("namenode",),
        "`true`: a namenode without metadata begins a new cluster at once, and restores none",
    ),
    Setting("DFS_FS_ROOT", _path, None, ("datanode",), "folder of the blocks", required=True),
    Setting("DFS_NAMENODE_URL", _url, None, ("datanode",), "where the namenode answers", required=True),
    Setting(
        "DFS_ADVERTISE_HOST", _text, None, ("datanode",),
        "host by which peers reach this datanode; unset: `DFS_HOST`, or its address towards the namenode",
    ),
    Setting(
        "DFS_PUBLIC_URL", _url, None, ("datanode",),
        "URL to which clients are redirected; unset: the one for peers",
    ),
    Setting(
        "DFS_REPAIR_RATE", _rate, "256MiB", ("datanode",), "bytes a second at which a datanode copies what it lacks"
    ),
    Setting("DFS_RESERVED_SPACE", _size, "64MiB", ("datanode",), "free space that blocks never use"),
    Setting(
        "DFS_SCRUB_EVERY", _seconds, "604800", ("datanode",),
        "seconds in which every block is read and checked once, at 1 to 64 MiB a second",
    ),
    Setting("DFS_URL", _url, f"http://localhost:{DEFAULT_PORT}/", ("dfs.py",), "namenode that `dfs.py` talks to"),
)  # fmt: skip

_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


def load(env: Mapping[str, str], *names: str) -> dict[str, Any]:
    """The parsed values of these variables, by name; None where unset without a default.

    Raises ConfigError for the first one that is missing or malformed. An empty value counts as unset,
    so that `DFS_PUBLIC_URL=` in a compose file does what it looks like.
    """
    values: dict[str, Any] = {}
    for name in names:
        setting = _BY_NAME[name]
        text = env.get(name) or setting.default
        if text is None:
            if setting.required:
                raise ConfigError(f"{name} is not set: {setting.meaning}")
            values[name] = None
            continue
        try:
            values[name] = setting.parse(text)
        except ValueError as error:
            raise ConfigError(f"{name}={text!r} {error}") from None
    return values


def load_for(reader: str, env: Mapping[str, str]) -> dict[str, Any]:
    """The parsed values of all variables that `reader` (server, namenode, datanode) reads."""
    return load(env, *(setting.name for setting in SETTINGS if reader in setting.readers))
