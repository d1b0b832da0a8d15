# SPDX-License-Identifier: Apache-2.0
"""A small hub on loopback that speaks as much of the Hugging Face hub's HTTP as a snapshot download asks for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSED = {"gated": (403, "GatedRepo"), "missing": (404, "RepoNotFound"), "broken": (503, "")}
"""What the hub says to everything below these names of repositories."""


@dataclass
class Hub:
    """One repository, owner/model, with `files` at COMMIT; `seen` holds method and path of each request. After `cut`
    bytes of a file the connection breaks, once."""

    files: dict[str, bytes]
    seen: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    cut: int | None = None
    url: str = ""


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    """The hub while the block runs."""
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.seen.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self.listing(parts[2:], with_body)
            elif parts[0] in REFUSED:
                self.refuse(parts[0], with_body)
            elif parts[2:3] == ["resolve"]:
                self.file("/".join(parts[4:]), with_body)
            else:
                self.send(404, b"{}", {}, with_body)

        def listing(self, parts: list[str], with_body: bool) -> None:
            owner, *rest = parts
            if owner in REFUSED and owner != "gated":  # whose listing is public
                self.refuse(owner, with_body)
            elif rest[1:2] == ["tree"]:
                rows = [{"type": "file", "path": n, "size": len(b), "oid": git(b)} for n, b in hub.files.items()]
                self.send(200, json.dumps(rows).encode(), {}, with_body)
            elif rest[1:2] == ["revision"] and rest[2] not in (COMMIT, "main"):
                self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
            else:
                names = [{"rfilename": name} for name in hub.files]
                info = {"_id": "1", "id": "owner/model", "sha": COMMIT, "siblings": names, "tags": [], "private": False}
                self.send(200, json.dumps(info).encode(), {}, with_body)

        def refuse(self, owner: str, with_body: bool) -> None:
            status, code = REFUSED[owner]
            self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, with_body)

        def file(self, name: str, with_body: bool) -> None:
            body = hub.files[name]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git(body)}"', "Accept-Ranges": "bytes"}
            asked = self.headers.get("Range")
            if with_body and asked:
                hub.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                self.send(206, body[start:], headers, with_body)
            elif with_body and hub.cut is not None and len(body) > hub.cut:
                self.send(200, body, headers, with_body, hub.cut)
            else:
                self.send(200, body, headers, with_body)

        def send(
            self, status: int, body: bytes, headers: dict[str, str], with_body: bool, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body[:cut])
            if cut is not None:
                hub.cut, self.close_connection = None, True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def git(body: bytes) -> str:
    """The name of a blob in git, which the hub uses as the ETag of small files."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
