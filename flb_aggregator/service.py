# SPDX-License-Identifier: Apache-2.0
"""The gRPC servicer: messages in, messages out, faults to status. It decides nothing itself.

Every refusal is one sentence; its stable code travels in the trailing metadata `flb-code`.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from flb import identity
from flb.admission import check_manifest, weight
from flb.errors import (
    AlreadyAdmitted,
    BadMessage,
    BadSignature,
    DiskError,
    FLBError,
    NotListed,
    TooManyTries,
    Unavailable,
    WrongRound,
)
from flb.rounds import Phase, name_of, work_of
from flb.types import Address, Admitted, Digest, Round
from flb.v1 import aggregator_service_pb2 as pb
from flb.v1 import aggregator_service_pb2_grpc as pb_grpc
from flb.wire import messages
from flb.wire.chunks import CHUNK
from flb_aggregator import listing
from flb_aggregator.daemon import Daemon
from flb_aggregator.intake import Upload, leaves_a_trace
from flb_aggregator.sessions import Sessions

Context: TypeAlias = Any
"""grpc.aio.ServicerContext, which comes without types."""
PHASES = {
    Phase.WAITING: pb.ROUND_PHASE_WAITING,
    Phase.INTAKE: pb.ROUND_PHASE_INTAKE,
    Phase.COMBINING: pb.ROUND_PHASE_COMBINING,
    Phase.ROLLING: pb.ROUND_PHASE_ROLLING,
    Phase.FINISHED: pb.ROUND_PHASE_FINISHED,
}
assert set(PHASES) == set(Phase), "every phase has a name on the wire"
REPLACEMENTS = 3
"""How often a node may send another update in a round after one was refused."""


async def refuse(context: Context, error: FLBError, *trailing: tuple[str, bytes]) -> None:
    """End a call with the error's status, sentence and code."""
    status = getattr(grpc.StatusCode, error.status)
    await context.abort(status, str(error), (("flb-code", error.code), *trailing))


@dataclass(slots=True)
class Service(pb_grpc.AggregatorServiceServicer):
    """Implements flb.v1.AggregatorService over a Daemon."""

    daemon: Daemon
    sessions: Sessions
    uploads: dict[Address, Upload] = field(default_factory=dict)
    refused: dict[tuple[Round, Digest, Address], int] = field(default_factory=dict)

    def caller(self, context: Context) -> Address | None:
        """The member behind the session token, if there is one."""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str):
                return self.sessions.node_of(value.removeprefix("Bearer "))
        return None

    def member(self, context: Context) -> Address:
        """The member behind the session token. Raises BadSignature."""
        node = self.caller(context)
        if node is None:
            raise BadSignature("this call needs a session", "open one with OpenSession")
        return node

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """The spec, signed."""
        daemon = self.daemon
        spec = daemon.spec.encode()
        signed = identity.sign(daemon.key, daemon.domain, identity.statement_hash("flb.v1.GetRun", spec))
        return pb.GetRunResponse(spec=spec, chain_id=daemon.domain.chain_id, run=daemon.domain.run, signature=signed)

    async def OpenSession(self, request: pb.OpenSessionRequest, context: Context) -> pb.OpenSessionResponse:
        """Challenge, then token, for a caller who follows the same registry."""
        try:
            self.sessions.check_run(request.chain_id, request.run)
            members = self.daemon.view.members
            if request.WhichOneof("step") == "node":
                nonce, expires = self.sessions.challenge(messages.address(request.node, "node"), members)
                return pb.OpenSessionResponse(challenge=pb.Challenge(nonce=nonce, expires=expires))
            if request.WhichOneof("step") == "session":
                session, signature = messages.session_from_proto(request.session)
                return pb.OpenSessionResponse(token=self.sessions.open(session, signature, members))
            raise BadMessage("OpenSession without a step", "send node first, then session")
        except FLBError as error:
            await refuse(context, error)
            raise

    async def WatchRounds(
        self, request: pb.WatchRoundsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRoundsResponse]:
        """The present state, then every change."""
        try:
            self.member(context)
        except FLBError as error:
            await refuse(context, error)
        last = b""
        while True:
            async with self.daemon.changed:
                state = self.round_state().SerializeToString(deterministic=True)
                while state == last:
                    await self.daemon.changed.wait()
                    state = self.round_state().SerializeToString(deterministic=True)
            last = state
            hashed = identity.statement_hash("flb.v1.RoundState", state)
            signed = identity.sign(self.daemon.key, self.daemon.domain, hashed)
            yield pb.WatchRoundsResponse(state=state, signature=signed)

    def round_state(self) -> pb.RoundState:
        """What the machine says now."""
        state = self.daemon.state
        opening, work = state.opening, work_of(state)
        if opening is None:
            return pb.RoundState(phase=PHASES[state.phase], base=self.daemon.view.adapter)
        return pb.RoundState(
            phase=PHASES[state.phase],
            round=opening.round,
            step=opening.step,
            seed=opening.seed,
            deadline=opening.deadline,
            base=opening.base,
            block_number=opening.block.number,
            block_hash=opening.block.hash,
            admitted=sorted(work.admitted),
            begun=sorted(work.begun),
            cohort=[member.node for member in opening.cohort],
        )

    async def DownloadBlob(
        self, request: pb.DownloadBlobRequest, context: Context
    ) -> AsyncIterator[pb.DownloadBlobResponse]:
        """Chunks of a listed blob."""
        try:
            path = self.listed_path(request.digest, self.caller(context) is not None)
            size = path.stat().st_size
            if request.offset > size:
                raise BadMessage(f"offset {request.offset} lies beyond the blob's {size} bytes", "start again from 0")
        except FLBError as error:
            await refuse(context, error)
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            offset, first = request.offset, True
            while first or offset < size:
                data = await asyncio.to_thread(os.pread, descriptor, CHUNK, offset)
                yield pb.DownloadBlobResponse(data=data, size=size if first else 0)
                offset, first = offset + len(data), False
                if self.daemon.state.opening:
                    self.daemon.metrics.sent(self.daemon.state.opening.round, len(data))
        finally:
            os.close(descriptor)

    def listed_path(self, raw: bytes, member: bool) -> Path:
        """The file of a blob that this caller may have. Raises NotListed, the same for unknown and forbidden."""
        digest = messages.digest(raw, "digest")
        daemon = self.daemon
        may = listing.listed(digest, daemon.spec, daemon.view, daemon.blobs, member)
        if not may or not self.daemon.blobs.has(digest):
            raise NotListed("no such blob for this caller", "ask for what the chain or GetRoundAudit lists")
        return self.daemon.blobs.path(digest)

    async def QueryUpload(self, request: pb.QueryUploadRequest, context: Context) -> pb.QueryUploadResponse:
        """Committed offset, or the receipt."""
        try:
            node = self.member(context)
            name = (Round(request.round), messages.digest(request.seed, "seed"))
            work = self.daemon.state.works.get(name)
            if work and node in work.admitted:
                return pb.QueryUploadResponse(receipt=self.receipt(work.admitted[node]))
            opening = self.daemon.state.opening
            if opening is None or name != name_of(opening):
                raise WrongRound(f"round {request.round} is not open", "follow the round that the chain opened")
            held, digest = self.daemon.spool.committed(name, node)
            return pb.QueryUploadResponse(committed=held, digest=digest)
        except FLBError as error:
            await refuse(context, error)
            raise

    def receipt(self, admitted: Admitted) -> pb.SignedReceipt:
        """The stored receipt of an admitted update."""
        return messages.receipt_to_proto(identity.receipt_for(admitted.manifest, admitted.weight), admitted.receipt)

    async def UploadUpdate(
        self, request_iterator: AsyncIterator[pb.UploadUpdateRequest], context: Context
    ) -> pb.UploadUpdateResponse:
        """Manifest, chunks, receipt."""
        trailing: tuple[tuple[str, bytes], ...] = ()
        try:
            node = self.member(context)
            first = await anext(aiter(request_iterator), None)
            if first is None or first.WhichOneof("part") != "header":
                raise BadMessage("an upload does not begin with its manifest", "send the header first")
            manifest, signature = messages.manifest_from_proto(first.header.manifest)
            if manifest.node != node:
                raise BadSignature("the manifest names another node than the session", "open a session as that node")
            present = listing.admitted(self.daemon.state, node)
            if present is not None:
                trailing = (("flb-receipt-bin", self.receipt(present).SerializeToString()),)
            state = self.daemon.state
            member = check_manifest(
                manifest,
                signature,
                spec=self.daemon.spec,
                spec_digest=self.daemon.spec_digest,
                domain=self.daemon.domain,
                opening=state.opening if state.phase is Phase.INTAKE or present else None,
                admitted=present,
            )
            if present is not None:
                return pb.UploadUpdateResponse(receipt=self.receipt(present))
            tries = (manifest.round, manifest.seed, node)
            if self.refused.get(tries, 0) > REPLACEMENTS:
                raise TooManyTries(
                    f"{REPLACEMENTS + 1} updates of this node were refused in this round", "wait for the next round"
                )
            self.daemon.begin(manifest)
            try:
                norm = await self.receive(manifest, first.header.offset, request_iterator)
            except FLBError as error:
                if not leaves_a_trace(error):
                    self.refused[tries] = self.refused.get(tries, 0) + 1
                    self.daemon.log(f"round {manifest.round}: refused 0x{node.hex()[:8]}…: {error}")
                raise
            used = weight(self.daemon.spec, manifest, member)
            admitted = self.daemon.admit(manifest, signature, used, norm)
            if admitted is None or admitted.manifest.digest != manifest.digest:
                self.daemon.blobs.path(manifest.digest).unlink(missing_ok=True)  # it counts nowhere
            if admitted is None:
                raise WrongRound("intake closed while the update was on its way", "keep it for the next round")
            if admitted.manifest.digest != manifest.digest:
                raise AlreadyAdmitted("another update of this node was admitted meanwhile", "the first one counts")
            return pb.UploadUpdateResponse(receipt=self.receipt(admitted))
        except FLBError as error:
            await refuse(context, error, *trailing)
            raise
        except (OSError, sqlite3.Error) as error:
            self.daemon.log(f"an update could not be stored: {error}")
            await refuse(context, DiskError("the aggregator could not store the update", "ask its operator"))
            raise

    async def receive(self, manifest: Any, offset: int, stream: AsyncIterator[pb.UploadUpdateRequest]) -> float:
        """Spool the chunks and check the update; returns its norm."""
        old = self.uploads.get(manifest.node)
        if old is not None:
            await asyncio.to_thread(old.close)
        upload = await asyncio.to_thread(Upload, self.daemon.spool, manifest, offset)
        self.uploads[manifest.node] = upload
        discard = False
        try:
            async for message in stream:
                if message.WhichOneof("part") != "data":
                    raise BadMessage("a second header in one upload", "open a new stream")
                await asyncio.to_thread(upload.write, message.data)
                self.daemon.metrics.received(manifest.round, len(message.data))
            opening = self.daemon.state.opening
            if opening is None or name_of(opening) != (manifest.round, manifest.seed):
                raise WrongRound("the round ended while the update was on its way", "follow the round that is open")
            return await asyncio.to_thread(upload.finish, self.daemon.spec, opening.step)
        except FLBError as error:
            discard = not leaves_a_trace(error)
            raise
        finally:
            await asyncio.shield(asyncio.to_thread(upload.close, discard))
            if self.uploads.get(manifest.node) is upload:
                del self.uploads[manifest.node]

    async def GetRoundAudit(self, request: pb.GetRoundAuditRequest, context: Context) -> pb.GetRoundAuditResponse:
        """Digests of what a sealed round left."""
        try:
            if not self.daemon.view.block_number >= 0:
                raise Unavailable("the aggregator has not read the chain yet", "try again in a moment")
            member = self.caller(context) is not None
            for roll in self.daemon.view.rolls:
                if roll.round == request.round:
                    updates = listing.updates(roll, self.daemon.spec, self.daemon.blobs, member)
                    return pb.GetRoundAuditResponse(
                        record=roll.record_digest, adapter=roll.adapter_digest, updates=updates
                    )
            raise NotListed(f"round {request.round} is not sealed", "ask for a sealed round")
        except FLBError as error:
            await refuse(context, error)
            raise
