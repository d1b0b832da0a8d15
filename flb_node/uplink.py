# SPDX-License-Identifier: Apache-2.0
"""The node's side of the protocol: sessions, watching, resumable download and upload. Blocking calls.

What the aggregator says is checked against the chain or its signature before anybody acts on it. A gRPC failure
becomes the fault that its `flb-code` names, or AggregatorUnavailable.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from flb import identity
from flb.errors import (
    AggregatorUnavailable,
    AlreadyAdmitted,
    BadSignature,
    Impostor,
    PeerFault,
    Truncated,
)
from flb.membership import SignedMessage
from flb.spec import digest_of
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Manifest, Receipt, Round, Session, Step
from flb.v1 import aggregator_service_pb2 as pb
from flb.v1 import aggregator_service_pb2_grpc as pb_grpc
from flb.wire import chunks, frames, messages
from flb_node.answers import Announcement, Relayed
from flb_node.channel import Endpoint, open_channel
from flb_node.faults import check_clock, translated
from flb_node.idle import Progress, moving
from flb_node.upload import SERVICE, parts, upload_call

CALL_SECONDS = 30.0
"""Deadline of calls that carry no bulk."""


LARGEST_BLOB = 1 << 34
"""Bytes that are taken for a blob whose size the caller does not know."""

OPTIONS = (
    # an hour of training must not cost the connection: pings keep it, and tell when it is gone
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.enable_http_proxy", 0),  # the certificate is fetched without a proxy, so the channel uses none either
)

BULK_OPTIONS = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
"""A connection of its own: channels that are alike share one."""


@dataclass(slots=True)
class Uplink:
    """One channel to the aggregator, and the session on it."""

    endpoint: Endpoint
    domain: Domain
    aggregator: Callable[[], Address]
    """Who signs for the aggregator, by the chain."""
    node: Address
    key: bytes
    channel: grpc.Channel = field(init=False)
    stub: Any = field(init=False)
    blob: Any = field(init=False)
    """DownloadBlob over serialized messages: `flb.wire.frames` saves copies."""
    cert_digest: Digest = field(init=False)
    """Of the certificate that the channel trusts; zero for none of the aggregator's own."""
    token: str = ""
    now: Callable[[], float] = time.time
    """Unix seconds."""

    def __post_init__(self) -> None:
        self.channel, self.cert_digest = open_channel(self.endpoint, OPTIONS)
        self.stub = pb_grpc.AggregatorServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.blob = self.channel.unary_stream(
            f"/{SERVICE}/DownloadBlob", request_serializer=pb.DownloadBlobRequest.SerializeToString
        )

    def close(self) -> None:
        """Close the channel; running calls end, but for an upload, which has a connection of its own."""
        self.channel.close()

    # ---------------------------------------------------------------- reading

    def get_run(self, spec_digest: Digest) -> bytes:
        """The spec's bytes, checked against the chain's digest and the aggregator's signature."""
        with translated():
            answer = self.stub.GetRun(pb.GetRunRequest(), timeout=CALL_SECONDS)
        hashed = identity.statement_hash("flb.v1.GetRun", answer.spec)
        if digest_of(answer.spec) != spec_digest:
            raise Impostor("the aggregator's run spec is not the one on chain", "do not trust this endpoint")
        if identity.recover(self.domain, hashed, answer.signature) != self.aggregator():
            raise Impostor("the run spec is not signed by the run's aggregator", "do not trust this endpoint")
        return bytes(answer.spec)

    def relay(self, signed: SignedMessage) -> Relayed:
        """Ask the aggregator to bring a membership message to the chain. Raises Busy, or AggregatorUnavailable."""
        request = pb.RelayRequest(
            chain_id=self.domain.chain_id, run=self.domain.run, messages=[messages.membership_to_proto(signed)]
        )
        with translated():
            answer = self.stub.Relay(request, timeout=CALL_SECONDS)
        if len(answer.results) != 1:
            raise AggregatorUnavailable("the aggregator's answer about a message is malformed", "trying again")
        result = answer.results[0]
        state = pb.RelayState.Name(result.state).removeprefix("RELAY_STATE_").lower()
        return Relayed(state, result.error, result.reason, result.tx)

    def session(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a session; opens one when there is none. Raises ClockSkew."""
        if not self.token:
            registry: dict[str, Any] = {"chain_id": self.domain.chain_id, "run": self.domain.run}
            with translated():
                first = self.stub.OpenSession(pb.OpenSessionRequest(node=self.node, **registry), timeout=CALL_SECONDS)
                challenge = first.challenge
                check_clock(challenge.expires - self.now())
                nonce = messages.digest(challenge.nonce, "nonce")
                session = Session(self.node, nonce, self.cert_digest, challenge.expires)
                signed = identity.sign(self.key, self.domain, identity.session_hash(session))
                request = pb.OpenSessionRequest(session=messages.session_to_proto(session, signed), **registry)
                self.token = self.stub.OpenSession(request, timeout=CALL_SECONDS).token
        return (("authorization", f"Bearer {self.token}"),)

    def renewed(self, call: Callable[[], Any]) -> Any:
        """Call; when the session is over (an hour, or a restart) open a new one and call once more."""
        try:
            return call()
        except BadSignature:
            self.token = ""
            return call()

    def watch(self) -> Iterator[Announcement]:
        """Signed announcements until the stream breaks."""
        with translated():
            for message in self.stub.WatchRounds(pb.WatchRoundsRequest(), metadata=self.session()):
                hashed = identity.statement_hash("flb.v1.RoundState", message.state)
                if identity.recover(self.domain, hashed, message.signature) != self.aggregator():
                    raise Impostor("an announcement is not signed by the run's aggregator", "do not trust it")
                state = pb.RoundState.FromString(message.state)
                trains = state.phase in (pb.ROUND_PHASE_OPENED, pb.ROUND_PHASE_INTAKE)
                yield Announcement(
                    Round(state.round), Digest(state.seed), Step(state.step), Digest(state.base),
                    frozenset(Address(node) for node in state.cohort) if trains else frozenset(),
                    Digest(state.record or ZERO_DIGEST),
                )  # fmt: skip

    def download(self, digest: Digest, blobs: BlobStore, limit: int = LARGEST_BLOB) -> Path:
        """Fetch a blob of at most `limit` bytes unless it is here; a broken download goes on where it stopped.

        The file is not flushed to the medium: it can be fetched again, and who reads it compares its digest.
        Raises DigestMismatch, TooLarge, NotListed, Busy, or AggregatorUnavailable.
        """
        if blobs.has(digest):
            return blobs.path(digest)
        part = blobs.folder / f"{digest.hex()}.download"
        with part.open("ab+", buffering=0) as file:
            receiver = chunks.Receiver(digest, limit)
            file.seek(0)
            while block := file.read(chunks.CHUNK):
                receiver.resume(block)
            request = pb.DownloadBlobRequest(digest=digest, offset=receiver.held)
            caller = self.session() if any(self.key) else ()  # an auditor has no key, and needs none
            try:
                clock = Progress()
                call = self.blob(request, metadata=caller)
                with translated(), moving(call, clock):
                    for message in call:
                        data = frames.decode(frames.DOWNLOAD_DATA, message)
                        if data is None:
                            first = pb.DownloadBlobResponse.FromString(message)
                            receiver.size, data = min(first.size, limit), memoryview(first.data)
                        if data:
                            receiver.take(data)
                            file.write(data)
                        clock.moved()
                receiver.finish()
            except Truncated as error:
                raise AggregatorUnavailable(error.what, "the download goes on where it stopped") from error
            except PeerFault:
                part.unlink()
                raise
        return blobs.adopt(part, digest)

    # --------------------------------------------------------------- sending

    def deliver(
        self,
        manifest: Manifest,
        signature: bytes,
        path: Path,
        progress: Callable[[int, int], None],
        codec_error: float = 0.0,
    ) -> tuple[Receipt, bytes]:
        """Bring an update to the aggregator, from where it stopped; returns the checked receipt.

        `codec_error` is for the round's report. Raises Busy, AggregatorUnavailable, or the aggregator's refusal.
        """
        query = pb.QueryUploadRequest(round=manifest.round, seed=manifest.seed)

        def ask() -> Any:
            with translated():
                return self.stub.QueryUpload(query, metadata=self.session(), timeout=CALL_SECONDS)

        state = self.renewed(ask)
        if state.HasField("receipt"):
            return self.checked(state.receipt, manifest)
        offset = state.committed if state.digest == manifest.digest else 0
        with path.open("rb", buffering=0) as file, translated():
            clock = Progress()

            def sent(done: int, size: int) -> None:
                clock.moved()
                progress(done, size)

            header = pb.UploadHeader(
                manifest=messages.manifest_to_proto(manifest, signature), offset=offset, codec_error=codec_error
            )
            begun: Future[grpc.Call] = Future()

            def turn() -> None:
                begun.result().initial_metadata()

            messages_out = parts(header, file.fileno(), offset, manifest.size, sent, turn)
            metadata = self.session()
            with self.bulk_channel() as channel:
                call = upload_call(channel).future(messages_out, metadata=metadata)
                begun.set_result(call)
                with moving(call, clock):
                    answer = call.result()
        return self.checked(answer.receipt, manifest)

    @contextmanager
    def bulk_channel(self) -> Iterator[grpc.Channel]:
        """A connection for one upload, closed after it.

        gRPC keeps the buffers that a connection last read into until it closes, as many as it once read at a time: 15
        of 64 KiB after an upload, measured, and `grpc.experimental.tcp_max_read_chunk_size` does not limit them. With
        64 nodes this was 60 MiB of the aggregator. A handshake costs milliseconds.

        Where another certificate is shown than was named when this uplink opened, its own channel is still the one
        that was checked, and is used. Raises AggregatorUnavailable.
        """
        try:
            channel, _ = open_channel(self.endpoint, BULK_OPTIONS)
        except Impostor:
            yield self.channel
            return
        with channel:
            yield channel

    def checked(self, message: pb.SignedReceipt, manifest: Manifest) -> tuple[Receipt, bytes]:
        """The receipt, if it is signed by the run's aggregator and for this very update."""
        receipt, signed = messages.receipt_from_proto(message)
        if identity.recover(self.domain, identity.receipt_hash(receipt), signed) != self.aggregator():
            raise Impostor("the receipt is not signed by the run's aggregator", "keep the update and ask the operator")
        own = (manifest.round, manifest.seed, manifest.node, manifest.spec)
        if (receipt.round, receipt.seed, receipt.node, receipt.spec) != own:
            raise Impostor("the receipt is for another round or node", "keep the update and ask the operator")
        if receipt.digest != manifest.digest:
            raise AlreadyAdmitted("another update of this node counts in this round", "give each device its own key")
        if receipt != identity.receipt_for(manifest, receipt.weight) or receipt.weight < 1:
            raise Impostor("the receipt does not belong to the manifest", "keep the update and ask the operator")
        return receipt, signed
