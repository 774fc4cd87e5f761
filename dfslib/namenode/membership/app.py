"""`/cluster`: what datanodes say and ask, and what operators want to know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from aiohttp import web

from dfslib.errors import Fenced, ForeignVolume, InvalidArgument, NotFound, Unavailable, UnknownNode
from dfslib.model import InodeId, NodeId, parse_block
from dfslib.namenode.blocks.deferral import Deferral
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.reconcile import Page, deletable, reconcile
from dfslib.namenode.checkpoint.cluster import State
from dfslib.namenode.checkpoint.finding import Finder
from dfslib.namenode.checkpoint.keeper import Keeper
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.membership.incarnations import Decision, Verdict, admit_new, decide
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.membership.readiness import Other, is_ready
from dfslib.namenode.membership.registry import Datanode, NodeState, Registry
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn, Txn
from dfslib.namenode.namespace import content, records
from dfslib.namenode.params import Params
from dfslib.namenode.repair.worker import Repair
from dfslib.namenode.status import ClusterStatus
from dfslib.runtime.logs import event
from dfslib.wire import messages, routes
from dfslib.wire.features import Role, named

log = logging.getLogger("dfs.membership")

_HOLD_S: Final = 1.0
"""How long a heartbeat without orders is held. While it is, the end of its connection tells at once that
the datanode's process has ended."""
_HOLD_BUSY_S: Final = 0.1
"""While a datanode makes copies, the next ones are ordered when it tells that some are done."""
_MESSAGE_MAX: Final = 4 << 20


class ClusterRoutes:
    def __init__(
        self,
        engine: MetadataEngine,
        keeper: Keeper,
        finder: Finder,
        registry: Registry,
        orders: Orders,
        in_flight: InFlight,
        status: ClusterStatus,
        repair: Repair,
        deferral: Deferral,
        monotonic: Callable[[], float],
        now_ns: Callable[[], int],
        on_joined: Callable[[NodeId], None],
    ) -> None:
        """`on_joined` is told of datanodes that come anew: what was known of their state may not hold."""
        self._engine = engine
        self._keeper = keeper
        self._finder = finder
        self._on_joined = on_joined
        self._registry = registry
        self._orders = orders
        self._in_flight = in_flight
        self._status = status
        self._repair = repair
        self._deferral = deferral
        self._monotonic = monotonic
        self._began_s = monotonic()
        self._now_ns = now_ns

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(routes.CLUSTER, self.cluster),
            web.get(routes.CLUSTER_DF, self.df),
            web.get(routes.CLUSTER_FSCK, self.fsck),
            web.post(routes.CLUSTER_JOIN, self.join),
            web.post(routes.CLUSTER_REPORT, self.report),
            web.post(routes.CLUSTER_HEARTBEAT, self.heartbeat),
            web.post(routes.CLUSTER_DRAIN, self.drain),
            web.post(routes.CLUSTER_FORGET, self.forget),
            web.post(routes.CLUSTER_RESTORE, self.restore),
            web.post(routes.CLUSTER_OPEN, self.open),
            web.post(routes.CLUSTER_RELEASE, self.release),
            web.get(routes.CLUSTER_LAYOUT + "/{ino}", self.layout),
            web.get(routes.CLUSTER_LOCATE + "/{block}", self.locate),
        ]

    async def cluster(self, _: web.Request) -> web.Response:
        return _json(self._status.cluster())

    async def df(self, _: web.Request) -> web.Response:
        return _json(self._status.df())

    async def fsck(self, _: web.Request) -> web.Response:
        """In a thread: it reads all of the metadata, in one snapshot."""
        return _json(await asyncio.to_thread(self._status.fsck))

    async def join(self, request: web.Request) -> web.Response:
        message = messages.decode(await _body(request), messages.JoinRequest)
        url = message.url or _url(request.remote or "localhost", message.port)
        cluster = self._keeper.cluster
        joiner = Joiner(
            NodeId(message.node_id), url, message.cluster_id, message.epoch, message.protocol, message.position
        )
        if cluster.state is not State.OPEN:
            self._refuse_copies(message)
        await self._keeper.admit(joiner)
        if message.cluster_id and message.cluster_id != cluster.id:
            raise ForeignVolume(f"the volume belongs to cluster {message.cluster_id}, this is cluster {cluster.id}")
        cluster.level.require(Role.DATANODE, message.features)
        verdict, admitted, reason = self._decide(message)
        if verdict is Verdict.LATER:
            raise Unavailable(reason)
        if verdict is Verdict.REFUSED:
            await self._engine.transact(lambda txn: records.put_admitted(txn, admitted))
            raise Fenced(reason)
        node = self._registry.join(message, url, self._monotonic(), self._now_ns())
        self._orders.forget(node.id)
        self._on_joined(node.id)
        record = node.record()
        await self._engine.transact(lambda txn: _enter(txn, record, admitted))
        log.info(event("datanode joined", node=node.id, url=node.url, public_url=node.public_url, blocks=node.blocks))
        features = named(Role.NAMENODE)
        node.answered_s = self._monotonic()
        return _json(messages.JoinAnswer(cluster.id, node.url, cluster.epoch, cluster.level.current, features))

    def _refuse_copies(self, message: messages.JoinRequest) -> None:
        """Before the metadata is served, a copy of a datanode's volume does not speak for that datanode. Raises
        Unavailable: nothing is written yet, and it is told more once the metadata is served."""
        known = self._registry.admitted(message.node_id, self._monotonic())
        if known is not None and (decision := decide(message, known)).verdict is not Verdict.ADMITTED:
            raise Unavailable(decision.reason)

    def _decide(self, message: messages.JoinRequest) -> Decision:
        """Whether this process is the datanode, where its id is known: what follows from that is done in the same
        step, so that no other one is admitted meanwhile."""
        known = self._registry.admitted(message.node_id, self._monotonic())
        decision = decide(message, known) if known is not None else admit_new(message)
        self._registry.remember(decision.admitted)
        if decision.reason:
            told = event("datanode joins", verdict=decision.verdict.value, node=message.node_id, reason=decision.reason)
            log.warning(told)
        return decision

    async def report(self, request: web.Request) -> web.Response:
        message = messages.decode(await _body(request), messages.ReportRequest)
        node = self._registry.joined(message.node_id, message.incarnation)
        ids = message.blocks
        if any(a >= b for a, b in zip([message.after, *ids], ids, strict=False)) or not (ids or message.last):
            raise InvalidArgument("a page's blocks are sorted, behind 'after', and only the last page is empty")
        page = Page(message.after, ids, message.last, node.answered_s)
        unknown = await self._engine.transact(lambda txn: reconcile(txn, node.id, page, self._in_flight))
        self._registry.joined(node.id, node.incarnation)  # still
        if self._keeper.hold.held:
            self._finder.found(unknown, node.id)
            unknown = []
        self._registry.report(node, self._monotonic(), first=message.after == 0, last=message.last)
        if message.last:
            self._repair.changed()
            log.info(event("datanode is alive", node=node.id, url=node.url))
        node.answered_s = self._monotonic()
        return _json(messages.ReportAnswer(unknown))

    async def heartbeat(self, request: web.Request) -> web.Response:
        message = messages.decode(await _body(request), messages.HeartbeatRequest)
        node = self._registry.heartbeat(message, self._monotonic(), self._now_ns())
        beat = node.beat  # of this one: another may come before it is answered
        if not self._keeper.agrees(message.position):
            self._registry.dismiss(node.id)
            raise UnknownNode(f"datanode {node.id} was brought metadata by another namenode: it has to join anew")
        try:
            await self._repair.outcome(node.id, message.copied, message.failed, message.bad)
            self._registry.joined(node.id, node.incarnation)  # still
            if message.leaving:
                log.info(event("datanode leaves", node=node.id, url=node.url))
                return _json(messages.HeartbeatAnswer([]))
            orders = await self._orders.wait(node.id, _HOLD_BUSY_S if self._repair.is_busy(node.id) else _HOLD_S)
        except asyncio.CancelledError:
            if self._registry.lost(node.id, beat):
                log.warning(event("datanode lost, its connection ended", node=node.id, url=node.url))
            raise
        self._registry.joined(node.id, node.incarnation)  # still: the orders may be another one's
        node.heard_s = max(node.heard_s, self._monotonic()) if node.beat == beat else node.heard_s
        report = self._registry.wants_report(node, self._monotonic())
        delete = self._engine.read(lambda txn: deletable(txn, node.id, orders.delete)) if orders.delete else []
        node.answered_s = self._monotonic()
        return _json(
            messages.HeartbeatAnswer(
                list(delete), orders.copy, report, self._whole_for(node), self._keeper.cluster.level.current
            )
        )

    def _whole_for(self, node: Datanode) -> bool:
        if node.ready:
            return True
        now = self._monotonic()
        others = (
            Other(self._registry.state(other, now), other.leaving, other.ready)
            for other in self._registry.all()
            if other.id != node.id
        )
        return is_ready(others, repairing=self._repair.is_at_work, up_s=now - self._began_s)

    async def drain(self, request: web.Request) -> web.Response:
        """Have a datanode's blocks copied elsewhere, so that it can be taken away; `cancel=true` takes that back."""
        params = Params(request.rel_url.raw_query_string, {"node", "cancel"})
        node = self._registry.drain(self._named(params), not params.flag("cancel"))
        record = node.record()
        await self._engine.transact(lambda txn: records.put_node(txn, record))
        self._repair.changed()
        log.info(event("datanode drained" if node.drained else "drain taken back", node=node.id, url=node.url))
        return _json(self._status.cluster())

    async def forget(self, request: web.Request) -> web.Response:
        """Strike a datanode that is dead and will not come back."""
        node_id = self._named(Params(request.rel_url.raw_query_string, {"node"}))
        node = self._registry.get(node_id)
        if node is None or self._registry.state(node, self._monotonic()) not in (NodeState.DEAD, NodeState.SUSPECT):
            raise InvalidArgument("only a datanode that is gone can be forgotten: stop it first")
        self._registry.forget(node_id)  # first: what joins from now on is entered after the deletion
        await self._engine.transact(lambda txn: records.delete_node(txn, node_id))
        self._repair.changed()
        log.info(event("datanode forgotten", node=node_id, url=node.url))
        return _json(self._status.cluster())

    async def restore(self, request: web.Request) -> web.Response:
        """Restore an empty namenode now, from all datanodes that have come or from the one at the URL `from`."""
        source = Params(request.rel_url.raw_query_string, {"from"}).raw("from")
        await self._keeper.restore(source.decode("utf-8", "replace").rstrip("/") if source else None)
        return _json(self._status.cluster())

    async def open(self, request: web.Request) -> web.Response:
        """Serve the metadata that is here; `force=true`: also where datanodes have not shown that it is the newest."""
        if not Params(request.rel_url.raw_query_string, {"force"}).flag("force"):
            self._keeper.cluster.require_open()
        else:
            await self._keeper.open_by_force()
        return _json(self._status.cluster())

    async def release(self, request: web.Request) -> web.Response:
        """Delete again what no file uses, before the time after a restore is over."""
        Params(request.rel_url.raw_query_string, set())
        await self._keeper.hold.release()
        return _json(self._status.cluster())

    def _named(self, params: Params) -> NodeId:
        """The datanode that `node` names: by its id, the beginning of it, or its URL."""
        wanted = params.required("node").decode("utf-8", "replace")
        nodes = self._registry.all()
        found = [n.id for n in nodes if n.id.startswith(wanted) or n.url.rstrip("/") == wanted.rstrip("/")]
        if len(found) != 1:
            raise NotFound("no datanode has this id or URL" if not found else "several datanodes match", wanted)
        return found[0]

    async def layout(self, request: web.Request) -> web.Response:
        text = request.match_info["ino"]
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise InvalidArgument(f"{text!r} is not an inode number")
        ino = InodeId(int(text))

        def read(txn: ReadTxn) -> messages.LayoutBody:
            attr = records.get_attr(txn, ino)
            if attr.is_dir or attr.target:
                raise InvalidArgument("not a regular file")
            extents = content.read_extents(txn, ino)
            return messages.LayoutBody(ino, attr.version, attr.size, attr.mtime_ns, extents)

        async with self._deferral.none_of(ino):
            return _json(self._engine.read(read))

    async def locate(self, request: web.Request) -> web.Response:
        try:
            block = parse_block(request.match_info["block"])
        except ValueError as error:
            raise InvalidArgument(str(error)) from None
        record = self._engine.read(lambda txn: records.find_block(txn, block))
        if record is None:
            raise NotFound("no file uses this block", request.match_info["block"])
        return _json(messages.LocateBody(self._status.urls(record.nodes)))


def _enter(txn: Txn, node: records.NodeRecord, admitted: records.AdmittedRecord) -> None:
    records.put_node(txn, node)
    if admitted.incarnation:
        records.put_admitted(txn, admitted)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _body(request: web.Request) -> bytes:
    if request.content_length is None or request.content_length > _MESSAGE_MAX:
        raise InvalidArgument(f"a message needs a Content-Length of at most {_MESSAGE_MAX}")
    return await request.content.readexactly(request.content_length)


def _json(body: object) -> web.Response:
    return web.Response(body=messages.encode(body), content_type="application/json")  # type: ignore[arg-type]
