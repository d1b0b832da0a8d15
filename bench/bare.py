# SPDX-License-Identifier: Apache-2.0
"""The limit: what Python, gRPC and this disk can do with the same bytes and nothing else on.

    python -m bench.bare [--nodes N] [--mib M] [--repeat R] [--json]

N client processes stream a file over TLS, in chunks of 1 MiB, into a server process that hashes (SHA-256) and writes
each into a spool file and flushes it; the server merges the N files into one (float32 mean, hashed, flushed); the
clients download that, hash and write it. No manifest, no session, no check, no record, no chain. It is written for
speed: raw bytes as messages, gRPC's own windows, hashing and writing in threads beside the event loop, reads ahead,
flushes while bytes still come, buffers reused. Files of the round before are deleted first, here and in
`bench.transfer`, which runs this beside the real thing: on a virtual machine that gives unused memory back to its host,
a page that was free for some seconds costs ten times as much as one that has just been freed.
"""

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from flb.chain.local import free_port

MIB = 1 << 20
FLUSH = 32 * MIB
NAME = "bare"
LIMIT = [("grpc.max_receive_message_length", 4 * MIB), ("grpc.so_reuseport", 0)]


class Sink:
    """A file that is hashed on the way, and flushed in the background every 32 MiB."""

    def __init__(self, path: Path, flush: ThreadPoolExecutor | None) -> None:
        self.file, self.hash, self.size, self.flushed = path.open("wb", buffering=0), hashlib.sha256(), 0, 0
        self.flush = flush
        self.pending: Any = None

    def put(self, data: bytes) -> None:
        self.hash.update(data)
        self.file.write(data)
        self.size += len(data)
        if self.flush and self.size - self.flushed >= FLUSH and (self.pending is None or self.pending.done()):
            self.flushed = self.size
            self.pending = self.flush.submit(os.fsync, self.file.fileno())

    def close(self) -> None:
        if self.pending:
            self.pending.result()
        if self.flush:
            os.fsync(self.file.fileno())
        self.file.close()


class Server:
    """Takes files, merges them, gives the result."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size, self.out = folder, size, folder / "out"
        self.threads = ThreadPoolExecutor(16)
        self.files: list[Path] = []

    async def up(self, stream: Any, context: Any) -> bytes:
        loop, waiting, room = asyncio.get_running_loop(), deque[bytes](), asyncio.Semaphore(8)
        self.files.append(self.folder / f"up-{len(self.files)}")
        sink = Sink(self.files[-1], self.threads)
        work: asyncio.Future[None] | None = None

        def drain() -> None:
            while waiting:
                sink.put(waiting.popleft())
                loop.call_soon_threadsafe(room.release)

        async for data in stream:
            await room.acquire()
            waiting.append(data)
            if work is None or work.done():
                work = loop.run_in_executor(self.threads, drain)
        while work is not None:
            await work
            work = loop.run_in_executor(self.threads, drain) if waiting else None
        await loop.run_in_executor(self.threads, sink.close)
        return b""

    async def merge(self, request: bytes, context: Any) -> bytes:
        await asyncio.get_running_loop().run_in_executor(self.threads, self.average)
        return b""

    def average(self) -> None:
        """Mean of the files, every second MiB in a thread of its own; the hash follows in a third, then the flush."""
        files = [os.open(path, os.O_RDONLY) for path in self.files]
        self.files = []
        out = os.open(self.out, os.O_RDWR | os.O_CREAT)
        scale = np.float32(1 / len(files))
        done = [threading.Semaphore(0), threading.Semaphore(0)]

        def part(which: int) -> None:
            buffer, total = np.empty(MIB // 4, np.float32), np.empty(MIB // 4, np.float32)
            for at in range(which * MIB, self.size, 2 * MIB):
                count = min(MIB, self.size - at) // 4
                os.preadv(files[0], [memoryview(total[:count]).cast("B")], at)
                for file in files[1:]:
                    os.preadv(file, [memoryview(buffer[:count]).cast("B")], at)
                    np.add(total[:count], buffer[:count], out=total[:count])
                np.multiply(total[:count], scale, out=total[:count])
                os.pwrite(out, memoryview(total[:count]).cast("B"), at)
                done[which].release()

        workers = [threading.Thread(target=part, args=(which,)) for which in (0, 1)]
        for worker in workers:
            worker.start()
        digest, block = hashlib.sha256(), memoryview(bytearray(MIB))
        for number, at in enumerate(range(0, self.size, MIB)):
            done[number % 2].acquire()
            digest.update(block[: os.preadv(out, [block], at)])
        os.fsync(out)
        for file in (*files, out):
            os.close(file)

    async def down(self, request: bytes, context: Any) -> None:
        loop, at = asyncio.get_running_loop(), 0
        file = os.open(self.out, os.O_RDONLY)
        ahead = loop.run_in_executor(self.threads, os.pread, file, MIB, at)
        while data := await ahead:
            at += len(data)
            ahead = loop.run_in_executor(self.threads, os.pread, file, MIB, at)
            await context.write(data)
        os.close(file)


async def serve(folder: Path, size: int, port: int) -> None:
    """The server process."""
    server, mine = grpc.aio.server(options=LIMIT), Server(folder, size)
    calls = {
        "up": grpc.stream_unary_rpc_method_handler(mine.up),
        "merge": grpc.unary_unary_rpc_method_handler(mine.merge),
        "down": grpc.unary_stream_rpc_method_handler(mine.down),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, calls),))
    pair = ((folder / "key.pem").read_bytes(), (folder / "cert.pem").read_bytes())
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def client(folder: Path, size: int, port: int, index: int) -> None:
    """A client process: a line on stdin starts each step, a line on stdout ends it."""
    roots = grpc.ssl_channel_credentials((folder / "cert.pem").read_bytes())
    channel = grpc.secure_channel(f"127.0.0.1:{port}", roots, options=[*LIMIT, ("grpc.ssl_target_name_override", NAME)])
    grpc.channel_ready_future(channel).result(30)
    source = os.open(folder / "source", os.O_RDONLY)
    print("ready", flush=True)
    for line in sys.stdin:
        step = line.strip()
        if step == "up":
            chunks = (os.pread(source, MIB, at) for at in range(0, size, MIB))
            channel.stream_unary(f"/{NAME}/up")(chunks)
        elif step == "clear":  # of the round before, off the clock, as in bench.transfer
            (folder / f"down-{index}").unlink(missing_ok=True)
            if index == 0:
                for old in (*folder.glob("up-*"), folder / "out"):
                    old.unlink(missing_ok=True)
        elif step == "merge":
            channel.unary_unary(f"/{NAME}/merge")(b"")
        else:
            sink = Sink(folder / f"down-{index}", None)
            for data in channel.unary_stream(f"/{NAME}/down")(b""):
                sink.put(data)
            sink.close()
        print("done", flush=True)


def certificate(folder: Path) -> None:
    """A self-signed pair."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-subj", f"/CN={NAME}", "-addext",
         f"subjectAltName=DNS:{NAME}"], check=True, capture_output=True,
    )  # fmt: skip


def measure(nodes: int, size: int, repeat: int) -> list[dict[str, float]]:
    """Seconds of upload, merge and download of each repeat, after one that warms up."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        certificate(folder)
        values = np.random.default_rng(0).standard_normal(size // 4, dtype=np.float32)
        (folder / "source").write_bytes(values.tobytes())
        command = [sys.executable, "-m", "bench.bare", "--folder", name, "--size", str(size), "--port", str(port)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        server = subprocess.Popen([*command, "--role", "server"], **pipes)
        clients = []
        try:
            server.stdout.readline()
            clients = [
                subprocess.Popen([*command, "--role", "client", "--index", str(index)], **pipes)
                for index in range(nodes)
            ]
            for process in clients:
                process.stdout.readline()
            rounds = []
            for _ in range(repeat + 1):
                figures = {}
                for process in clients:
                    process.stdin.write("clear\n")
                    process.stdin.flush()
                    assert process.stdout.readline() == "done\n"
                for step, those in (("upload_s", clients), ("merge_s", clients[:1]), ("download_s", clients)):
                    start = time.perf_counter()
                    for process in those:
                        process.stdin.write(step.removesuffix("_s").removesuffix("load") + "\n")
                        process.stdin.flush()
                    for process in those:
                        assert process.stdout.readline() == "done\n"
                    figures[step] = time.perf_counter() - start
                rounds.append(figures)
        finally:
            for process in (*clients, server):
                process.kill()
                process.wait()
    return rounds[1:]


def summary(rounds: list[dict[str, float]], nodes: int, mib: float) -> dict[str, Any]:
    """The median round."""
    median = {name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]}
    total = statistics.median(sum(r.values()) for r in rounds)
    return {
        "nodes": nodes,
        "payload_mib": mib,
        **median,
        "total_s": round(total, 3),
        "upload_mib_s": round(nodes * mib / median["upload_s"]),
        "download_mib_s": round(nodes * mib / median["download_s"]),
    }


def main() -> None:
    """Measure and print, or be one of the processes."""
    parser = argparse.ArgumentParser(description="Bare gRPC streams with TLS, SHA-256 and a flushed spool file.")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--mib", type=int, default=160)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    for name in ("--role", "--folder", "--size", "--port", "--index"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "server":
        asyncio.run(serve(Path(options.folder), int(options.size), int(options.port)))
    elif options.role == "client":
        client(Path(options.folder), int(options.size), int(options.port), int(options.index))
    else:
        result = summary(measure(options.nodes, options.mib * MIB, options.repeat), options.nodes, options.mib)
        if options.json:
            print(json.dumps(result))
        else:
            print("\n".join(f"{key:16} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
