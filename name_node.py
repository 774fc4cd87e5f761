"""The namenode, as `DFS_NODE_CLASS=name_node.NameNode` names it."""

from dfslib.namenode.node import NameNode

__all__ = ["NameNode"]
