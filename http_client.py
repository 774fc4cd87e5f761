"""DFS for Python programs.

from http_client import HttpNameNode

dfs = HttpNameNode("http://localhost:8180/")
dfs.tee("/hello", b"Hello, world!")
print([str(entry) for entry in dfs.ls("/")], dfs.cat("/hello"))
"""

from dfslib.client.datanode import HttpDataNode
from dfslib.client.entry import Entry
from dfslib.client.namenode import HttpNameNode
from dfslib.client.results import (
    ClusterStatus,
    DatanodeInfo,
    DiskUsage,
    FileInfo,
    Health,
    MetadataState,
    Problem,
    RepairProgress,
)

__all__ = [
    "ClusterStatus",
    "DatanodeInfo",
    "DiskUsage",
    "Entry",
    "FileInfo",
    "Health",
    "HttpDataNode",
    "HttpNameNode",
    "MetadataState",
    "Problem",
    "RepairProgress",
]
