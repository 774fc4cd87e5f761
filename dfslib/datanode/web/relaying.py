"""A block of a mount: sent once, to whichever datanode the mesh picked, and from here to all that are to hold it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from dfslib.datanode.services import Services
from dfslib.datanode.store.block_writer import NewBlock
from dfslib.datanode.web.receiving import receive_block
from dfslib.errors import ChecksumMismatch, InvalidArgument, NoSpace, NotEnoughDatanodes, Unavailable
from dfslib.model import format_block
from dfslib.transfer.fan_out import Delivery, FanOut, FanOutResult, Here, Patience, Target
from dfslib.wire.messages import BlockBody, GrantedBody
from dfslib.wire.session import Grant

_STALL_TIMEOUT_S: Final = 10.0
"""As the namenode's default. The mount that waits for this has a time limit of its own."""


async def relay_block(
    services: Services, new: NewBlock, grant: Grant, pieces: AsyncIterator[bytes], length: int | None
) -> GrantedBody:
    """Send what arrives to all targets of the grant, this datanode among them or not.

    Raises NotEnoughDatanodes or NoSpace where fewer than required have it then, ChecksumMismatch, and what
    `pieces` raises.
    """
    if grant.block != new.block:
        raise InvalidArgument(f"the grant is for block {format_block(grant.block)}")

    async def store(own: AsyncIterator[bytes]) -> BlockBody:
        stored = await receive_block(services, new, own, length)
        return BlockBody(format_block(stored.block), stored.size, f"{stored.crc32c:08x}")

    delivery = Delivery(
        new.block,
        [Target(target.node, target.url) for target in grant.targets],
        new.origins,
        Patience(_STALL_TIMEOUT_S, grant.required),
        home=grant.targets[0].node,
        sync=new.sync,
    )
    # A process that is none of the cluster yet may have a copy of the volume of the one that is meant.
    here = Here(services.node_id, store) if services.is_member() else None
    fan = FanOut(services.peers, delivery, length, here)
    finished = False
    try:
        async for piece in pieces:
            await fan.send(piece)
        if new.expected_crc32c is not None and new.expected_crc32c != fan.crc32c:
            raise ChecksumMismatch(
                f"announced with CRC32C {new.expected_crc32c:08x}, arrived with {fan.crc32c:08x}"
            )
        finished = True
    except Unavailable:  # nobody is left to send to
        finished = True
    finally:
        if not finished:
            await fan.abort()
    return _granted(await fan.finish(), grant)


def _granted(result: FanOutResult, grant: Grant) -> GrantedBody:
    if len(result.stored) < grant.required:
        reasons = "; ".join(f"{node}: {error}" for node, error in result.failures.items())
        kind = NoSpace if any(isinstance(error, NoSpace) for error in result.failures.values()) else NotEnoughDatanodes
        raise kind(f"{len(result.stored)} datanodes have the block, it needs {grant.required}: {reasons}")
    return GrantedBody(
        block=format_block(result.block),
        size=result.size,
        crc32c=f"{result.crc32c:08x}",
        nodes=list(result.stored),
        slow=list(result.slow),
        failed=[node for node in result.failures if node not in result.slow],
    )
