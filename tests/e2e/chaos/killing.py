# SPDX-License-Identifier: Apache-2.0
"""Run a daemon of the product that kills itself with SIGKILL at exact places, each once.

    python -m tests.e2e.chaos.killing --marks FOLDER [--kill PLACE]... [--chunk N] [--bind ADDRESS] [--numpy]
        (aggregator | node) --config F

The product has no hooks for this: the functions at these places are wrapped here, before the real main() runs. A place
is `WHEN:WHAT:COUNT`:

- `before:fact.KIND:N`, `after:fact.KIND:N`: the first fact of a kind that the journal takes for round N.
- `before:file.STEM:N`, `during:...`, `after:...`: the N-th whole file that this process writes whose name begins so.
- `before:adopt.SUFFIX:N`, `after:...`: the N-th finished blob whose unfinished name ends so.
- `at:upload.received:N`, `upload.sent`, `download.received`, `download.sent`, `blob.written`: byte N of the first
  transfer or blob of this process that reaches it. On the receiving side the bytes before N are on disk.

Small chunks give a small update as many places to break as a large one has. `--numpy` trains with a function of this
package instead of torch. A mark in FOLDER says that a place has done its work, so the next life passes it.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flb.store
from flb.journal import Journal
from flb.rounds import Fact
from flb.store import BlobStore, BlobWriter
from flb.wire import chunks, frames


@dataclass
class Place:
    """One place to die at."""

    text: str
    mark: Path
    when: str
    what: str
    count: int
    seen: int = field(default=0)

    def die(self) -> None:
        """Leave the mark, then SIGKILL this process; nothing runs after it."""
        self.mark.parent.mkdir(parents=True, exist_ok=True)
        self.mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def meets(self) -> bool:
        """Count one more call; True at the one that is meant."""
        self.seen += 1
        return self.seen == self.count


def parse(text: str, marks: Path) -> Place | None:
    """A place from the command line; None for one that has done its work in an earlier life."""
    when, what, count = text.split(":")
    mark = marks / text.replace(":", "_")
    return None if mark.exists() else Place(text, mark, when, what, int(count))


def wrap(place: Place) -> None:
    """Wrap the function that a place names."""
    what, _, which = place.what.partition(".")
    {
        "fact": on_fact,
        "file": on_file,
        "adopt": on_adopt,
        "blob": on_blob,
        "upload": on_upload,
        "download": on_download,
    }[what](place, which)


def around(place: Place, call: Callable[[], Any]) -> Any:
    """Make the call, with the death on the side that the place names."""
    if place.when == "before":
        place.die()
    answer = call()
    if place.when == "after":
        place.die()
    return answer


def on_fact(place: Place, kind: str) -> None:
    """A fact of the journal."""
    real = Journal.append

    def append(self: Journal, *facts: Fact) -> None:
        if any(type(fact).__name__ == kind and fact.name[0] == place.count for fact in facts):
            around(place, lambda: real(self, *facts))
        else:
            real(self, *facts)

    Journal.append = append  # type: ignore[method-assign]


def on_file(place: Place, stem: str) -> None:
    """A file that is written whole, by whatever module imported the function."""
    real = flb.store.write_atomic

    def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
        if not path.name.startswith(stem) or not place.meets():
            real(path, data, mode)
            return
        if place.when == "during":
            path.with_name(f".{path.name}.{os.getpid()}.part").write_bytes(data[: len(data) // 2])
            place.die()
        around(place, lambda: real(path, data, mode))

    for module in list(sys.modules.values()):
        if getattr(module, "write_atomic", None) is real:
            module.write_atomic = write_atomic  # type: ignore[attr-defined]


def on_adopt(place: Place, suffix: str) -> None:
    """The rename that makes a finished file a blob."""
    real = BlobStore.adopt

    def adopt(self: BlobStore, part: Path, digest: Any) -> Path:
        if part.name.endswith(suffix) and place.meets():
            return around(place, lambda: real(self, part, digest))  # type: ignore[no-any-return]
        return real(self, part, digest)

    BlobStore.adopt = adopt  # type: ignore[method-assign]


def on_blob(place: Place, _: str) -> None:
    """A byte of a blob that this process makes itself: a sealed update, an adapter."""
    real = BlobWriter.write

    def write(self: BlobWriter, data: Any) -> None:
        view, at = memoryview(data).cast("B"), self._file.tell()
        if at + len(view) >= place.count:
            self._file.write(view[: place.count - at])
            place.die()
        real(self, data)

    BlobWriter.write = write  # type: ignore[method-assign]


def on_upload(place: Place, side: str) -> None:
    """A byte of an upload, where it is received or where it is sent."""
    if side == "received":
        from flb_aggregator.intake import Upload

        real_write = Upload.write

        def write(self: Any, data: bytes) -> None:
            held = self.receiver.held
            if held + len(data) >= place.count > held:
                self._file.write(data[: place.count - held])
                place.die()
            real_write(self, data)

        Upload.write = write  # type: ignore[method-assign]
        return
    from flb_node import uplink

    real_parts = uplink.parts

    def parts(header: Any, descriptor: int, offset: int, *others: Any) -> Iterator[bytes]:
        for message in real_parts(header, descriptor, offset, *others):
            offset += len(frames.decode(frames.UPLOAD_DATA, message) or b"")
            if offset >= place.count:
                place.die()
            yield message

    uplink.parts = parts


def on_download(place: Place, side: str) -> None:
    """A byte of a download, where it is received or where it is sent."""
    if side == "received":
        from flb_node.uplink import Progress

        real_take, real_moved, held = chunks.Receiver.take, Progress.moved, [0]

        def take(self: Any, data: Any) -> None:
            real_take(self, data)
            held[0] = self.held

        def moved(self: Any) -> None:  # called after a chunk is written
            if held[0] >= place.count:
                place.die()
            real_moved(self)

        chunks.Receiver.take, Progress.moved = take, moved  # type: ignore[method-assign]
        return
    from flb_aggregator.transfers import Transfers

    real_count, sent = Transfers.count, [0]

    def count(self: Any, size: int) -> None:
        sent[0] += size
        if sent[0] >= place.count:
            place.die()
        real_count(self, size)

    Transfers.count = count  # type: ignore[method-assign]


def cut_small(size: int, daemon: str) -> None:
    """Send chunks of `size` bytes at most; what is received may be as large as ever."""
    if daemon == "aggregator":
        from flb_aggregator import transfers

        transfers.CHUNK = size
        return

    def send(read: Callable[[int, int], bytes], total: int, offset: int) -> Iterator[bytes]:
        while offset < total:
            count = min(size, total - offset)
            yield read(offset, count)
            offset += count

    chunks.send = send


def bind(address: str) -> None:
    """Listen on `address`; what the config says, and the chain repeats, is then the address of a proxy before it."""
    from flb_aggregator import server

    real = server.serve
    server.serve = lambda service, listen, *rest: real(service, address, *rest)


def main() -> int:
    """Wrap, then run the real command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--marks", type=Path, required=True)
    parser.add_argument("--kill", action="append", default=[])
    parser.add_argument("--chunk", type=int)
    parser.add_argument("--bind")
    parser.add_argument("--numpy", action="store_true")
    parser.add_argument("daemon", choices=("aggregator", "node"))
    parser.add_argument("--config", required=True)
    arguments = parser.parse_args()
    package = f"flb_{arguments.daemon}"
    app = importlib.import_module(f"{package}.app")  # all that is wrapped is loaded now
    if arguments.numpy and arguments.daemon == "node":
        from tests.e2e.chaos.training import make_trainer

        app.make_trainer = make_trainer  # type: ignore[attr-defined]
        app.usable.check = lambda *_: None  # type: ignore[attr-defined]  # it would import torch at each start
    if arguments.chunk:
        cut_small(arguments.chunk, arguments.daemon)
    if arguments.bind:
        bind(arguments.bind)
    for text in arguments.kill:
        place = parse(text, arguments.marks)
        if place is not None:
            wrap(place)
    return int(importlib.import_module(f"{package}.__main__").main(["--config", arguments.config]))


if __name__ == "__main__":
    raise SystemExit(main())
