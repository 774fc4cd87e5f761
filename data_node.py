"""`DFS_NODE_CLASS=data_node.DataNode`: the datanode for server.py. All of it lives in dfslib.datanode."""

from dfslib.datanode.node import DataNode

__all__ = ["DataNode"]
