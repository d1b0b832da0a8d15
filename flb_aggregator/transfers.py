# SPDX-License-Identifier: Apache-2.0
"""The two bulk calls: an update comes in, a blob goes out. Streams, turns and timeouts; no decision is made here.

Both handle serialized messages (`flb.wire.frames`), so that a chunk is not copied by generated code. A stream without
progress for `IDLE_SECONDS` ends; time that it waits for its turn does not count.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from google.protobuf.message import DecodeError

from flb import identity
from flb.admission import check_manifest, weight
from flb.errors import (
    AlreadyAdmitted,
    BadMessage,
    BadSignature,
    Busy,
    DiskError,
    FLBError,
    TooManyTries,
    Truncated,
    WrongRound,
)
from flb.rounds import Phase, name_of
from flb.types import Address, Admitted, Digest, Manifest, Round
from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import frames, messages
from flb.wire.chunks import CHUNK
from flb_aggregator import listing
from flb_aggregator.daemon import Daemon
from flb_aggregator.disk import FULL
from flb_aggregator.faults import RECEIPT, Context, Trailing, refuse
from flb_aggregator.feed import Feed
from flb_aggregator.intake import FULL_SECONDS, Upload, keeps_bytes
from flb_aggregator.limits import Turn, Turns

IDLE_SECONDS = 60.0
"""A stream that makes no progress for so long is dropped; every chunk starts the time anew."""
REPLACEMENTS = 3
"""How often a node may send another update in a round after one was refused."""
CHECKS = 2
"""Updates that are checked at once."""
THREADS = 8
"""For hashing, writing and checking; more would not run at once."""


@dataclass(slots=True)
class Transfers:
    """Streams of one aggregator."""

    daemon: Daemon
    idle_seconds: float = IDLE_SECONDS
    up: Turns = field(default_factory=Turns)
    down: Turns = field(default_factory=Turns)
    refused: dict[tuple[Round, Digest, Address], int] = field(default_factory=dict)
    checks: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(CHECKS, "check"))
    """Few at a time: a check is many short steps, and threads that take turns at them wait more than they work."""
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "transfer"))

    # ----------------------------------------------------------------------------------------------------- upload

    async def upload(self, node: Address, stream: AsyncIterator[bytes], context: Context) -> pb.UploadUpdateResponse:
        """Manifest, chunks, receipt: one update of `node`, whose session this is."""
        trailing: tuple[Trailing, ...] = ()
        try:
            header = await self.read_header(stream)
            manifest, signature = messages.manifest_from_proto(header.manifest)
            if manifest.node != node:
                raise BadSignature("the manifest names another node than the session", "open a session as that node")
            present = listing.admitted(self.daemon.state, node)
            if present is not None:
                trailing = ((RECEIPT, receipt_of(present).SerializeToString()),)
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
                return pb.UploadUpdateResponse(receipt=receipt_of(present))
            norm = await self.receive(manifest, header.offset, stream, context)
            if not self.daemon.spec.privacy.central:  # a figure of one node's data, without noise
                self.daemon.metrics.coded(manifest, header.codec_error)
            used = weight(self.daemon.spec, manifest, member)
            admitted = await self.daemon.admit(manifest, signature, used, norm)
            self.daemon.spool.path(manifest).unlink(missing_ok=True)  # until now a kill would have found it there
            if admitted is None:  # the blob counts nowhere then; retention finds it
                raise WrongRound("intake closed while the update was on its way", "keep it for the next round")
            if admitted.manifest.digest != manifest.digest:
                raise AlreadyAdmitted("another update of this node was admitted meanwhile", "the first one counts")
            return pb.UploadUpdateResponse(receipt=receipt_of(admitted))
        except FLBError as error:
            await refuse(context, error, *trailing)
        except (OSError, sqlite3.Error) as error:
            self.daemon.log(f"an update could not be stored: {error}")
            if isinstance(error, OSError) and error.errno in FULL:
                await refuse(context, Busy("the aggregator's disk is full", "come back later", FULL_SECONDS))
            await refuse(context, DiskError("the aggregator could not store the update", "ask its operator"))

    async def read_header(self, stream: AsyncIterator[bytes]) -> pb.UploadHeader:
        """The first message. Raises BadMessage for another one, Truncated for none in time."""
        try:
            async with asyncio.timeout(self.idle_seconds):
                first = await anext(aiter(stream), None)
        except TimeoutError as error:
            raise idle(self.idle_seconds) from error
        message = parse(first) if first is not None else pb.UploadUpdateRequest()
        if message.WhichOneof("part") != "header":
            raise BadMessage("an upload does not begin with its manifest", "send the header first")
        return message.header

    async def receive(self, manifest: Manifest, offset: int, stream: AsyncIterator[bytes], context: Context) -> float:
        """Spool the chunks and check the update; returns its norm."""
        tries = (manifest.round, manifest.seed, manifest.node)
        if self.refused.get(tries, 0) > REPLACEMENTS:
            raise TooManyTries(
                f"{REPLACEMENTS + 1} updates of this node were refused in this round", "wait for the next round"
            )
        self.daemon.spool.check_room(manifest)
        async with self.up.turn() as turn:
            await context.send_initial_metadata(())  # the sender waits for it, so that no window fills before the turn
            await self.daemon.begin(manifest)
            upload = await asyncio.to_thread(Upload, self.daemon.spool, manifest, offset)
            discard, clock = False, asyncio.get_running_loop().time
            try:
                started, held = clock(), upload.receiver.held
                await self.spool(upload, stream, turn)
                streamed = clock() - started
                turn.lend()  # the next one moves while this one is checked
                opening = self.daemon.state.opening
                if opening is None or not self.is_open(manifest):
                    raise WrongRound("the round ended while the update was on its way", "follow the round that is open")
                finish = partial(upload.finish, self.daemon.spec, opening.step)
                norm = await asyncio.get_running_loop().run_in_executor(self.checks, finish)
                self.daemon.metrics.uploaded(
                    manifest, manifest.size - held, streamed, upload.check_seconds, upload.flush_seconds
                )
                return norm
            except OSError as error:
                # what a broken medium did not take would look whole in the page cache
                discard = error.errno not in FULL
                raise
            except FLBError as error:
                refused = not keeps_bytes(error)
                # a stream that opened while its round ended came after the spool was cleared
                discard = refused or not self.is_open(manifest)
                if refused:
                    self.refused = {key: count for key, count in self.refused.items() if key[:2] == tries[:2]}
                    self.refused[tries] = self.refused.get(tries, 0) + 1
                    self.daemon.log(f"round {manifest.round}: refused 0x{manifest.node.hex()[:8]}…: {error}")
                raise
            finally:
                await asyncio.shield(asyncio.to_thread(upload.close, discard))

    async def spool(self, upload: Upload, stream: AsyncIterator[bytes], turn: Turn) -> None:
        """Write what comes. Raises what the upload raises, and Truncated after a time without progress."""
        feed = Feed(upload.write, self.threads)
        clock = asyncio.get_running_loop().time
        number = upload.manifest.round
        over = WrongRound("the round ended while the update was on its way", "follow the round that is open")
        try:
            async with asyncio.timeout(self.idle_seconds) as limit:
                while True:
                    turn.watch()
                    message = await anext(stream, None)
                    await turn.resume()
                    if message is None:
                        break
                    if not self.is_open(upload.manifest):
                        raise over
                    await feed.put(chunk_in(message))
                    self.daemon.metrics.received(number, len(message))
                    limit.reschedule(clock() + self.idle_seconds)
            await feed.end()
        except TimeoutError as error:
            raise idle(self.idle_seconds) from error
        finally:
            await asyncio.shield(feed.stop())

    def is_open(self, manifest: Manifest) -> bool:
        """Whether the round that an update was signed for is the open one: its deadline is the only one of a stream."""
        opening = self.daemon.state.opening
        return opening is not None and name_of(opening) == (manifest.round, manifest.seed)

    # --------------------------------------------------------------------------------------------------- download

    async def download(self, path: Path, offset: int, context: Context) -> None:
        """Send serialized chunks of a file from `offset` on; the first message says how large the file is."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            if offset > size:
                raise BadMessage(f"offset {offset} lies beyond the blob's {size} bytes", "start again from 0")
            async with self.down.turn() as turn, asyncio.timeout(self.idle_seconds) as limit:
                await self.send(descriptor, offset, size, turn, limit, context)
        except TimeoutError as error:
            raise idle(self.idle_seconds) from error
        finally:
            os.close(descriptor)

    async def send(
        self, descriptor: int, offset: int, size: int, turn: Turn, limit: asyncio.Timeout, context: Context
    ) -> None:
        """Send what `download` opened, reading one chunk ahead.

        Nothing is read before the turn came: the traceback of a refusal kept the chunk, 1 MiB for every caller that
        found the queue full, until the garbage collector came by.
        """
        loop = asyncio.get_running_loop()

        def read() -> "asyncio.Future[bytes]":
            return loop.run_in_executor(self.threads, os.pread, descriptor, CHUNK, offset)

        ahead = read()
        try:
            first = True
            while first or offset < size:
                data = await ahead
                count = len(data)
                offset += count
                ahead = read()
                message = frames.encode(frames.DOWNLOAD_DATA, data)
                if first:
                    message = pb.DownloadBlobResponse(data=data, size=size).SerializeToString()
                first, data = False, b""  # a slow peer holds one copy less
                turn.watch()
                await context.write(message)
                await turn.resume()
                limit.reschedule(loop.time() + self.idle_seconds)
                self.count(count)
        finally:
            await asyncio.shield(asyncio.wait((ahead,)))

    def count(self, size: int) -> None:
        """For the round's report."""
        if self.daemon.state.opening:
            self.daemon.metrics.sent(self.daemon.state.opening.round, size)


def chunk_in(message: bytes) -> bytes | memoryview:
    """The chunk in a message of an upload. Raises BadMessage where there is none."""
    view = frames.decode(frames.UPLOAD_DATA, message)
    if view is not None:
        return view
    parsed = parse(message)
    if parsed.WhichOneof("part") != "data":
        raise BadMessage("a second header in one upload", "open a new stream")
    return bytes(parsed.data)


def parse(message: bytes) -> pb.UploadUpdateRequest:
    """A message of an upload. Raises BadMessage for bytes that are none."""
    try:
        return pb.UploadUpdateRequest.FromString(message)
    except DecodeError as error:
        raise BadMessage("a message of the upload is malformed", "update the other side") from error


def idle(seconds: float) -> Truncated:
    """The fault of a stream that stands still."""
    return Truncated(f"the stream made no progress for {seconds:g} seconds", "ask for the committed offset and go on")


def receipt_of(admitted: Admitted) -> pb.SignedReceipt:
    """The stored receipt of an admitted update."""
    return messages.receipt_to_proto(identity.receipt_for(admitted.manifest, admitted.weight), admitted.receipt)
