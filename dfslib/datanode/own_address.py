"""By which of this machine's addresses the namenode is reached: peers on the same network reach it there, too.

Asked here rather than seen by the namenode: behind a swarm service's virtual IP every caller seems to be the balancer.
"""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit


async def own_address(namenode_url: str) -> str:
    """An IPv4 address of this machine, or "" where the namenode's name has none or no route leads there.

    Nothing is sent: the kernel chooses the address as it would for a connection.
    """
    parts = urlsplit(namenode_url)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            parts.hostname, parts.port or 80, family=socket.AF_INET, type=socket.SOCK_DGRAM
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(found[0][4])
            return str(probe.getsockname()[0])
    except OSError:  # joining fails of the same reason, and says so
        return ""
