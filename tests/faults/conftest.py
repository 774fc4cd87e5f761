"""The same fresh clusters as for tests/cluster."""

from tests.cluster.conftest import make_cluster

__all__ = ["make_cluster"]
