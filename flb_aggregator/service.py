# SPDX-License-Identifier: Apache-2.0
"""The gRPC servicer: messages in, messages out, faults to status. It decides nothing itself.

Every call passes `guarded`: limits by caller and by address come first, and every refusal is one sentence whose stable
code travels in the trailing metadata `flb-code`. The two bulk calls are `flb_aggregator.transfers`.
"""

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flb import identity
from flb.errors import BadMessage, BadSignature, FLBError, NotListed, Unavailable, WrongRound
from flb.rounds import Phase, name_of, work_of
from flb.types import Address, Digest, Opening, Round
from flb.v1 import aggregator_service_pb2 as pb
from flb.v1 import aggregator_service_pb2_grpc as pb_grpc
from flb.wire import messages
from flb_aggregator import listing
from flb_aggregator.daemon import Daemon
from flb_aggregator.faults import Context, refuse
from flb_aggregator.limits import Held, Rate, host_of
from flb_aggregator.relay import Relay
from flb_aggregator.relay_budget import network_of
from flb_aggregator.sessions import Sessions
from flb_aggregator.transfers import Transfers, receipt_of

PHASES = {
    Phase.WAITING: pb.ROUND_PHASE_WAITING,
    Phase.INTAKE: pb.ROUND_PHASE_INTAKE,
    Phase.COMBINING: pb.ROUND_PHASE_COMBINING,
    Phase.ROLLING: pb.ROUND_PHASE_ROLLING,
    Phase.FINISHED: pb.ROUND_PHASE_FINISHED,
}
assert set(PHASES) == set(Phase), "every phase has a name on the wire"
NODE_CALLS = (50.0, 200.0)
"""Calls a second, and at once, of a caller with a session."""
HOST_CALLS = (50.0, 1000.0)
"""The same for a network address without one; many nodes may share an address."""
RELAY_CALLS = (1.0, 60.0)
"""The same for Relay and a network, since each call asks the chain."""
NODE_STREAMS, HOST_STREAMS = 8, 4
"""Streams that one caller, and all addresses without a session together, may hold open."""
STRANGERS = "callers without a session"
RELAY_STATES = {
    "accepted": pb.RELAY_STATE_ACCEPTED, "mined": pb.RELAY_STATE_MINED, "skipped": pb.RELAY_STATE_SKIPPED,
    "refused": pb.RELAY_STATE_REFUSED,
}  # fmt: skip


@dataclass(slots=True)
class Service(pb_grpc.AggregatorServiceServicer):
    """Implements flb.v1.AggregatorService over a Daemon."""

    daemon: Daemon
    sessions: Sessions
    relay: Relay | None = None
    transfers: Transfers = field(init=False)
    node_calls: Rate = field(init=False)
    host_calls: Rate = field(init=False)
    relay_calls: Rate = field(init=False)
    node_streams: Held = field(default_factory=lambda: Held(NODE_STREAMS))
    host_streams: Held = field(default_factory=lambda: Held(HOST_STREAMS))
    told: pb.WatchRoundsResponse = field(default_factory=pb.WatchRoundsResponse)

    def __post_init__(self) -> None:
        self.transfers = Transfers(self.daemon)
        self.daemon.busy = lambda: bool(self.transfers.up.open or self.transfers.down.open)
        self.node_calls = Rate(*NODE_CALLS, time.monotonic)
        self.host_calls = Rate(*HOST_CALLS, time.monotonic)
        self.relay_calls = Rate(*RELAY_CALLS, time.monotonic)

    @asynccontextmanager
    async def guarded(self, context: Context, request: object, stream: bool = False) -> AsyncIterator[Address | None]:
        """Limits before, and the fault of the block as the call's status; gives the member who calls, if it is one.

        A `request` of None could not be read. Streams of callers without a session count together, so that they never
        hold more than a share of what members need.
        """
        node, host = self.caller(context), host_of(context.peer())
        try:
            with ExitStack() as held:
                if node is None:
                    self.host_calls.take(host, host)
                    streams = self.host_streams.stream(STRANGERS, STRANGERS)
                else:
                    name = "0x" + node.hex()
                    self.node_calls.take(node, name)
                    streams = self.node_streams.stream(node, name)
                if stream:
                    held.enter_context(streams)
                if request is None:
                    raise BadMessage("the request is malformed", "update the other side")
                yield node
        except FLBError as error:
            await refuse(context, error)

    def caller(self, context: Context) -> Address | None:
        """The member behind the session token, if there is one."""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str):
                return self.sessions.node_of(value.removeprefix("Bearer "), self.daemon.view.members)
        return None

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """The spec, signed."""
        daemon = self.daemon
        async with self.guarded(context, request):
            spec = daemon.spec.encode()
            signed = identity.sign(daemon.key, daemon.domain, identity.statement_hash("flb.v1.GetRun", spec))
        return pb.GetRunResponse(spec=spec, chain_id=daemon.domain.chain_id, run=daemon.domain.run, signature=signed)

    async def OpenSession(self, request: pb.OpenSessionRequest, context: Context) -> pb.OpenSessionResponse:
        """Challenge, then token, for a caller who follows the same registry."""
        async with self.guarded(context, request):
            self.sessions.check_run(request.chain_id, request.run)
            members = self.daemon.view.members
            if request.WhichOneof("step") == "node":
                nonce, expires = self.sessions.challenge(messages.address(request.node, "node"), members)
                return pb.OpenSessionResponse(challenge=pb.Challenge(nonce=nonce, expires=expires))
            if request.WhichOneof("step") == "session":
                session, signature = messages.session_from_proto(request.session)
                return pb.OpenSessionResponse(token=self.sessions.open(session, signature, members))
            raise BadMessage("OpenSession without a step", "send node first, then session")

    async def WatchRounds(
        self, request: pb.WatchRoundsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRoundsResponse]:
        """The present state, then every change."""
        async with self.guarded(context, request, stream=True) as caller:
            member(caller)
            last = b""
            while True:
                async with self.daemon.changed:
                    while (told := self.signed_state()).state == last:
                        await self.daemon.changed.wait()
                last = told.state
                yield told

    def signed_state(self) -> pb.WatchRoundsResponse:
        """What the machine says now, signed once for all watchers."""
        state = self.round_state().SerializeToString(deterministic=True)
        if state != self.told.state:
            hashed = identity.statement_hash("flb.v1.RoundState", state)
            signed = identity.sign(self.daemon.key, self.daemon.domain, hashed)
            self.told = pb.WatchRoundsResponse(state=state, signature=signed)
        return self.told

    def round_state(self) -> pb.RoundState:
        """What the machine says now."""
        state, ahead = self.daemon.state, self.daemon.ahead
        opening, work = state.opening, work_of(state)
        if ahead is not None:
            return opening_state(pb.ROUND_PHASE_OPENED, ahead, self.daemon.ahead_record)
        record = listing.last_record(self.daemon.view)
        if opening is None:
            return pb.RoundState(phase=PHASES[state.phase], base=self.daemon.view.adapter, record=record)
        told = opening_state(PHASES[state.phase], opening, record)
        told.admitted.extend(sorted(work.admitted))
        told.begun.extend(sorted(work.begun))
        return told

    def listed_path(self, raw: bytes, member: bool) -> Path:
        """The file of a blob that this caller may have. Raises NotListed, the same for unknown and forbidden."""
        digest = messages.digest(raw, "digest")
        daemon = self.daemon
        ahead: tuple[Digest, ...] = ()
        if daemon.ahead is not None:  # announced, so open; the chain's own view lists it later
            record = daemon.ahead_record
            ahead = (daemon.ahead.base, record, *listing.left_to(member, daemon.blobs, record, daemon.spec))
        may = digest in ahead or listing.listed(digest, daemon.spec, daemon.view, daemon.blobs, member)
        if not may or not daemon.blobs.has(digest):
            raise NotListed("no such blob for this caller", "ask for what the chain or GetRoundAudit lists")
        return self.daemon.blobs.path(digest)

    async def QueryUpload(self, request: pb.QueryUploadRequest, context: Context) -> pb.QueryUploadResponse:
        """Committed offset, or the receipt."""
        async with self.guarded(context, request) as caller:
            node = member(caller)
            name = (Round(request.round), messages.digest(request.seed, "seed"))
            work = self.daemon.state.works.get(name)
            if work and node in work.admitted:
                return pb.QueryUploadResponse(receipt=receipt_of(work.admitted[node]))
            opening = self.daemon.state.opening
            if opening is None or name != name_of(opening):
                raise WrongRound(f"round {request.round} is not open", "follow the round that the chain opened")
            held, digest = self.daemon.spool.committed(name, node)
            return pb.QueryUploadResponse(committed=held, digest=digest)

    async def UploadUpdate(self, stream: AsyncIterator[bytes], context: Context) -> pb.UploadUpdateResponse:
        """Manifest, chunks, receipt; `stream` gives serialized messages."""
        async with self.guarded(context, stream, stream=True) as caller:
            return await self.transfers.upload(member(caller), stream, context)

    async def DownloadBlob(self, request: pb.DownloadBlobRequest, context: Context) -> None:
        """Chunks of a listed blob, written as serialized messages."""
        async with self.guarded(context, request, stream=True) as caller:
            path = self.listed_path(request.digest, caller is not None)
            await self.transfers.download(path, request.offset, context)

    async def GetRoundAudit(self, request: pb.GetRoundAuditRequest, context: Context) -> pb.GetRoundAuditResponse:
        """Digests of what a sealed round left."""
        async with self.guarded(context, request) as caller:
            if not self.daemon.view.block_number >= 0:
                raise Unavailable("the aggregator has not read the chain yet", "try again in a moment")
            for roll in self.daemon.view.rolls:
                if roll.round == request.round:
                    updates = listing.updates(roll, self.daemon.spec, self.daemon.blobs, caller is not None)
                    return pb.GetRoundAuditResponse(
                        record=roll.record_digest, adapter=roll.adapter_digest, updates=updates
                    )
            raise NotListed(f"round {request.round} is not sealed", "ask for a sealed round")

    async def Relay(self, request: pb.RelayRequest, context: Context) -> pb.RelayResponse:
        """What becomes of each signed membership message."""
        async with self.guarded(context, request):
            if self.relay is None:
                raise Unavailable("this aggregator relays no messages", "use flb chain join with coins of your own")
            peer = context.peer()
            self.relay_calls.take(network_of(peer), network_of(peer))
            self.sessions.check_run(request.chain_id, request.run)
            outcomes = await self.relay.submit([messages.membership_from_proto(m) for m in request.messages], peer)
            results = [
                pb.RelayResult(state=RELAY_STATES[o.state], tx=o.tx, error=o.error, reason=o.reason) for o in outcomes
            ]
        return pb.RelayResponse(results=results)


def member(caller: Address | None) -> Address:
    """The caller, for calls that need a session. Raises BadSignature."""
    if caller is None:
        raise BadSignature("this call needs a session", "open one with OpenSession")
    return caller


def opening_state(phase: int, opening: Opening, record: Digest) -> pb.RoundState:
    """What an opening says to everybody; `record` made its base."""
    return pb.RoundState(
        phase=phase,  # type: ignore[arg-type]
        round=opening.round,
        step=opening.step,
        seed=opening.seed,
        deadline=opening.deadline,
        base=opening.base,
        record=record,
        block_number=opening.block.number,
        block_hash=opening.block.hash,
        cohort=[member.node for member in opening.cohort],
    )
