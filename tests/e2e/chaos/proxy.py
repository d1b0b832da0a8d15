# SPDX-License-Identifier: Apache-2.0
"""What stands between two processes: a TCP proxy that cuts and stalls, and a JSON-RPC one that repeats requests."""

import contextlib
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.chains import serving

BLOCK = 4096


@dataclass
class Proxy:
    """Passes bytes on between clients and one target. Bytes are never changed, so TLS may run through it."""

    target: tuple[str, int]
    listener: socket.socket
    flowing: threading.Event = field(default_factory=threading.Event)
    refusing: bool = False
    cut_at: int | None = None
    """Cut everything once so many bytes have gone to the target from now on."""
    passed: int = 0
    cuts: int = 0
    pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where clients connect to."""
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                if self.refusing:
                    raise ConnectionError
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(source, sink, sink is server), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        """One direction of one connection."""
        with contextlib.suppress(OSError):
            while data := source.recv(BLOCK):
                self.flowing.wait()
                if up:
                    self.passed += len(data)
                    if self.cut_at is not None and self.passed >= self.cut_at:
                        self.cut_at = None
                        self.cut()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut_after(self, count: int) -> None:
        """Cut once `count` more bytes have gone to the target."""
        self.passed, self.cut_at = 0, count

    def cut(self) -> None:
        """End every connection, with what was under way in it."""
        self.cuts += 1
        pairs, self.pairs = self.pairs, []
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def stall(self, stalled: bool) -> None:
        """Hold all bytes back, or let them flow."""
        if stalled:
            self.flowing.clear()
        else:
            self.flowing.set()


@contextmanager
def proxy(target: str, port: int = 0) -> Iterator[Proxy]:
    """A proxy on 127.0.0.1 before `target` (host:port) for the length of a block."""
    host, _, number = target.rpartition(":")
    with socket.create_server(("127.0.0.1", port)) as listener:
        made = Proxy((host, int(number)), listener)
        made.flowing.set()
        threading.Thread(target=made.accept, daemon=True).start()
        try:
            yield made
        finally:
            made.flowing.set()
            made.refusing = True
            made.cut()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


@dataclass
class Requests:
    """JSON-RPC requests on their way: each may reach the chain twice, or its answer may be lost."""

    target: str
    repeating: bool = False
    losing: int = 0
    """How many more transactions reach the chain without their answer reaching the sender."""
    repeated: int = 0
    lost: int = 0

    def pass_on(self, request: Any) -> bytes | None:
        """Forward one request; None cuts the client off."""
        try:
            answer = self.ask(request)
            if self.repeating:
                self.repeated += 1
                self.ask(request)
        except OSError:
            return None
        if self.losing and request.get("method") == "eth_sendRawTransaction":
            self.losing -= 1
            self.lost += 1
            return None
        return answer

    def ask(self, request: Any) -> bytes:
        """One exchange with the target."""
        data = json.dumps(request).encode()
        message = urllib.request.Request(self.target, data, {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(message, timeout=60) as answer:
            return bytes(answer.read())


@contextmanager
def requests(target: str) -> Iterator[tuple[Requests, str]]:
    """A JSON-RPC forwarder and its URL for the length of a block."""
    made = Requests(target)
    with serving(made.pass_on) as url:
        yield made, url
